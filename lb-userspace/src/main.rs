//! Runs the agent on a directory; the command line takes its place.
#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_env_filter("info,lb_userspace=debug").init();
    let d: std::path::PathBuf = std::env::args().nth(1).unwrap_or_default().into();
    lb_userspace::agent::run(lb_userspace::agent::AgentOptions {
        config: None,
        state: d.join("state"),
        socket: d.join("s.sock"),
        pins: format!("/sys/fs/bpf/lbx-{}", d.file_name().unwrap_or_default().to_string_lossy()).into(),
        seed: None,
    })
    .await
}
