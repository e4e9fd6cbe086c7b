//! `lb attach`, `lb detach`.

use super::Session;
use super::args::{DryRun, word};
use super::output::How;
use crate::api::client::segment;
use crate::api::failure::{Failure, FailureCode};
use crate::api::types::{AttachRequest, PlanView};
use crate::model::AttachMode;
use anyhow::Result;
use clap::Args;
use hyper::Method;

/// Arguments of `lb attach`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  lb attach eth0\n  lb attach eth0 eth1 --mode native")]
pub struct AttachArgs {
    /// Interfaces
    #[arg(required = true, value_name = "IFACE")]
    interfaces: Vec<String>,
    /// How: native runs in the driver, generic on socket buffers, auto tries native and says if it could not
    #[arg(long, value_name = "auto|native|generic", default_value = "auto", value_parser = word::<AttachMode>)]
    mode: String,
    #[command(flatten)]
    dry: DryRun,
}

/// Arguments of `lb detach`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Services stay as they are: attach again and they go on. Works without an agent too; the next agent
attaches again what its state or its configuration names.\n\nExamples:\n  lb detach eth0\n  lb detach --all"
)]
pub struct DetachArgs {
    /// Interfaces
    #[arg(required_unless_present = "all", value_name = "IFACE")]
    interfaces: Vec<String>,
    /// Every interface
    #[arg(long, conflicts_with = "interfaces")]
    all: bool,
    #[command(flatten)]
    dry: DryRun,
}

pub(super) async fn attach(session: &mut Session, args: AttachArgs) -> Result<()> {
    let body = AttachRequest { mode: Some(args.mode) };
    let mut plans = Vec::new();
    for interface in &args.interfaces {
        let path = format!("/v1/interfaces/{}", segment(interface));
        let plan = session.client.change(Method::PUT, &path, &body, args.dry.dry_run).await;
        finish(session, &mut plans, plan)?;
    }
    print(session, &plans)?;
    if args.dry.dry_run || session.out.is_json() {
        return Ok(());
    }
    // A fall-back to generic mode costs most of the speed: never silent.
    for interface in session.client.status().await?.interfaces {
        if let (true, Some(reason)) = (args.interfaces.contains(&interface.name), &interface.reason) {
            let mode = interface.mode.as_deref().unwrap_or("not attached");
            let text = format!("warning: {} is {mode}: {reason}", interface.name);
            session.out.line(How::Warning.paint(&text))?;
        }
    }
    Ok(())
}

pub(super) async fn detach(session: &mut Session, args: DetachArgs) -> Result<()> {
    let paths: Vec<_> = if args.all {
        vec!["/v1/interfaces".to_owned()]
    } else {
        args.interfaces.iter().map(|name| format!("/v1/interfaces/{}", segment(name))).collect()
    };
    let mut plans = Vec::new();
    for path in paths {
        let body = serde_json::json!({});
        let plan = session.client.change(Method::DELETE, &path, &body, args.dry.dry_run).await;
        if matches!(&plan, Err(failure) if failure.code == FailureCode::NoAgent) && session.has_pins() {
            plans = session.detach_pinned(&args.interfaces, args.dry.dry_run)?;
            break;
        }
        finish(session, &mut plans, plan)?;
    }
    print(session, &plans)
}

/// Keeps what was done; if it was not, first says what was done before.
fn finish(session: &mut Session, plans: &mut Vec<PlanView>, plan: Result<PlanView, Failure>) -> Result<()> {
    match plan {
        Ok(plan) => plans.push(plan),
        Err(failure) => {
            if !session.out.is_json() {
                print(session, plans)?;
            }
            return Err(failure.into());
        }
    }
    Ok(())
}

/// One interface is an object, several are a list.
fn print(session: &mut Session, plans: &[PlanView]) -> Result<()> {
    match plans {
        [plan] => session.print_plan(plan),
        plans if session.out.is_json() => session.out.json(&plans),
        plans => plans.iter().try_for_each(|plan| session.print_plan(plan)),
    }
}
