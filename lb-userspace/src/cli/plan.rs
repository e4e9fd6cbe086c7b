//! What every change prints: what happened, or what would.

use super::Session;
use super::output::How;
use crate::api::types::PlanView;
use anyhow::Result;

impl Session {
    /// Prints what a change did.
    pub(super) fn print_plan(&mut self, plan: &PlanView) -> Result<()> {
        let out = &mut self.out;
        if out.is_json() {
            return out.json(plan);
        }
        if plan.dry_run && plan.changed {
            out.line("dry run, nothing was done; this is what would be:")?;
        }
        out.line(&plan.message)?;
        // What was done is already said; what would be done is what was asked for.
        if plan.dry_run {
            for step in &plan.steps {
                out.line(format_args!("  {step}"))?;
            }
            if plan.changed {
                let slots = match plan.services.as_slice() {
                    [] => "no new flow would go elsewhere".to_owned(),
                    services => services
                        .iter()
                        .map(|s| {
                            format!(
                                "{}: {:.1}% of new flows would go elsewhere ({} of {} slots)",
                                s.name,
                                s.share_moved * 100.0,
                                s.slots_moved,
                                s.slots_total
                            )
                        })
                        .collect::<Vec<_>>()
                        .join("\n"),
                };
                out.line(slots)?;
            }
        }
        for warning in &plan.warnings {
            out.line(format_args!("{} {warning}", How::Warning.paint("warning:")))?;
        }
        Ok(())
    }
}
