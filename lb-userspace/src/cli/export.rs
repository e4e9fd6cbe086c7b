//! `lb export`.

use super::Session;
use anyhow::Result;

pub(super) async fn run(session: &mut Session) -> Result<()> {
    let text = session.client.export().await?;
    if session.out.is_json() {
        let value: toml::Value = toml::from_str(&text)?;
        return session.out.json(&value);
    }
    session.out.text(text)
}
