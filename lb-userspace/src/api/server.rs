//! The agent's socket: made so that only one agent has it, and served until it is told to stop.

use super::control::Control;
use anyhow::{Context, Result, bail};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::UnixListener;

/// A socket that is listened on; its file goes when this does.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    file: SocketFile,
}

#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::warn!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// Listens on `path`, mode 0660, making its directory. A socket that nobody answers on is replaced.
///
/// # Errors
///
/// Another agent answers there, something else than a socket is there, or the system says no.
pub fn bind(path: &Path) -> Result<Socket> {
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(directory).with_context(|| {
            format!("cannot make {}: run as root, or say another place with --socket", directory.display())
        })?;
    }
    refuse_if_taken(path)?;
    // Under another name until its mode is right, then put in place at once: nobody sees it in between.
    let fresh = SocketFile(path.with_added_extension(std::process::id().to_string()));
    let listener = UnixListener::bind(&fresh.0).with_context(|| {
        format!("cannot listen on {}: run as root, or say another place with --socket", path.display())
    })?;
    fs::set_permissions(&fresh.0, fs::Permissions::from_mode(0o660))
        .with_context(|| format!("cannot set the mode of {}", path.display()))?;
    fs::rename(&fresh.0, path).with_context(|| format!("cannot put {} in place", path.display()))?;
    std::mem::forget(fresh);
    Ok(Socket { listener, file: SocketFile(path.to_owned()) })
}

fn refuse_if_taken(path: &Path) -> Result<()> {
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot look at {}", path.display())),
    };
    if !kind.is_socket() {
        bail!("{} is not a socket: move it away, or say another place with --socket", path.display());
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => bail!(
            "an agent already answers on {}: see `lb status`; stop it first, or say another place with --socket",
            path.display()
        ),
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => {
            tracing::info!("replacing {}: nobody answers on it", path.display());
            Ok(())
        }
        Err(error) => {
            Err(error).with_context(|| format!("cannot tell whether an agent has {}", path.display()))
        }
    }
}

/// Serves the API until `stop` is ready and requests under way are answered.
///
/// # Errors
///
/// The socket fails.
pub async fn serve<C: Control>(
    socket: Socket,
    control: Arc<C>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let Socket { listener, file } = socket;
    let served = axum::serve(listener, super::routes::router(control)).with_graceful_shutdown(stop).await;
    drop(file);
    served.context("the API's socket failed")
}
