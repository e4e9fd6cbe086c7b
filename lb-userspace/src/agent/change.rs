//! Changes that somebody asks for: judged, planned, persisted, done, or refused with nothing changed.

use super::core::Core;
use super::views;
use crate::api::control::Source;
use crate::api::failure::{Failure, FailureCode};
use crate::api::types::PlanView;
use crate::config::{self, Change, Checked, Outcome};
use crate::model::{Desired, Service};
use crate::plan::{self, RingCache};

impl Core {
    /// Does a change, or plans it.
    pub(super) async fn change(&mut self, change: Change, dry_run: bool) -> Result<PlanView, Failure> {
        let outcome = config::apply(&self.state.desired, change)?;
        self.bring_about(outcome, dry_run).await
    }

    /// Makes what is desired so: interfaces first, because they are what may be refused; then it is persisted, then done.
    pub(super) async fn bring_about(&mut self, outcome: Outcome, dry_run: bool) -> Result<PlanView, Failure> {
        // What a pass has left to do is not the change's doing, unless it is known to have failed.
        let mut touched = self.touched.clone();
        touched.differing(&self.state.desired, &outcome.desired);
        // Rings of what may never be: those that are remembered are what the tables hold.
        let planned = self.plan(&outcome.desired, &touched, &mut RingCache::default()).map_err(full)?;
        let mut view = views::plan(&outcome, &planned, dry_run);
        views::interface_steps(&mut view, &self.state.desired, &outcome.desired);
        if dry_run || !outcome.changed {
            return Ok(view);
        }
        let new = self.attach_new(&outcome.desired, &mut view).await?;
        let other_interfaces = self.state.desired.interfaces != outcome.desired.interfaces;
        let before = std::mem::replace(&mut self.state.desired, outcome.desired);
        if let Err(error) = self.try_save() {
            self.state.desired = before;
            for name in new {
                // It was attached a moment ago; what fails now is found and tried again by the next pass.
                let _ = self.interfaces.detach(&self.dataplane, &name);
            }
            return Err(Failure::failed(
                format!("nothing was changed: the state cannot be saved: {error:#}"),
                format!("see that {} can be written", self.options.state.display()),
            ));
        }
        if other_interfaces || self.interfaces_incomplete() {
            self.interfaces_follow().await;
        }
        self.touched.differing(&before, &self.state.desired);
        self.converge().await;
        match &self.failure {
            None => Ok(view),
            Some(failure) => Err(Failure::failed(
                format!("the change is saved, but not yet in force: {failure}"),
                "the agent keeps trying; see `lb status`",
            )),
        }
    }

    /// Attaches interfaces that are new in `desired`; if one is refused, those before it are detached again.
    pub(super) async fn attach_new(
        &mut self,
        desired: &Desired,
        view: &mut PlanView,
    ) -> Result<Vec<String>, Failure> {
        let mut done: Vec<String> = Vec::new();
        for (name, mode) in &desired.interfaces {
            if self.state.desired.interfaces.get(name) == Some(mode) {
                continue;
            }
            let was_attached = self.state.desired.interfaces.contains_key(name);
            let result = match self.netlink.link(name).await {
                Ok(link) => self
                    .interfaces
                    .attach(&self.dataplane, &link, *mode)
                    .map_err(|error| views::interface_failure(&error)),
                Err(error) => Err(Failure::new(FailureCode::NotFound, error.to_string(), "see `ip link`")),
            };
            match result {
                Ok(attached) => {
                    view.warnings.extend(
                        attached
                            .fallback
                            .map(|why| format!("{name} is attached in generic mode, which is slower: {why}")),
                    );
                    if !was_attached {
                        done.push(name.clone());
                    }
                }
                Err(failure) => {
                    for name in &done {
                        // As above: what fails is found by the next pass.
                        let _ = self.interfaces.detach(&self.dataplane, name);
                    }
                    return Err(failure);
                }
            }
        }
        Ok(done)
    }
}

/// Judges a configuration: seconds for a very large one.
pub(super) fn judge(source: &Source) -> Result<Checked, Failure> {
    Ok(config::check(&source.text, &source.name)?)
}

/// What a configuration makes of what is desired.
pub(super) fn outcome_of(desired: &Desired, mut checked: Checked) -> Result<Outcome, Failure> {
    let warnings: Vec<String> = checked.warnings.iter().map(ToString::to_string).collect();
    for service in checked.desired.services.values_mut() {
        // What stays is made anew, so that no part of what it was judged with stays with it.
        *service = Service::clone(service).into();
    }
    let outcome = config::change::replace(desired, checked)?;
    Ok(Outcome { warnings, ..outcome })
}

fn full(error: plan::PlanError) -> Failure {
    Failure::failed(
        format!("nothing was changed: {error}"),
        "start the agent with larger tables and fresh pins, or remove services",
    )
}
