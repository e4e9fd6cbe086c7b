//! What the loaded programs cost, as the kernel tells: tests keep them within budgets.

use aya::programs::{ProgramError, Xdp};
use aya_obj::programs::XdpAttachType;
use lb_common::abi::names;

use super::object;
use super::{Dataplane, OpenError};

/// The cost of one program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// The program.
    pub program: &'static str,
    /// Instructions that the verifier walked (kernel 5.16).
    pub verified_instructions: Option<u32>,
    /// Bytes of its code after the verifier rewrote it.
    pub translated_bytes: Option<u32>,
    /// Bytes of its machine code, 0 without a just-in-time compiler.
    pub jited_bytes: u32,
}

impl Dataplane {
    /// What each program of this build costs.
    ///
    /// # Errors
    /// A program is not pinned, or the kernel does not tell.
    pub fn costs(&self) -> Result<Vec<Cost>, OpenError> {
        let dir = self.pins.programs().join(object::build()?);
        let cost = |program| {
            let path = dir.join(program);
            let info = Xdp::from_pin(&path, XdpAttachType::Interface).and_then(|program| program.info());
            let info = info.map_err(|error: ProgramError| OpenError::Look {
                path: path.clone(),
                source: Box::new(error.into()),
            })?;
            Ok(Cost {
                program,
                verified_instructions: info.verified_instruction_count(),
                translated_bytes: info.size_translated(),
                jited_bytes: info.size_jitted(),
            })
        };
        names::PROGRAMS.into_iter().map(cost).collect()
    }
}
