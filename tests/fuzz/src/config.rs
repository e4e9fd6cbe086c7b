//! Any text as a configuration: refused with a reason, or accepted and exported as what means the same.

use lb_userspace::config::{check, export};

use crate::recipe::{self, RECIPE};

/// The bytes are a configuration file, or a recipe for one. What is not UTF-8 never gets as far as being judged.
///
/// # Panics
/// When something does not hold.
pub fn config(bytes: &[u8]) {
    match bytes {
        [RECIPE, steps @ ..] => judge(&recipe::cook(steps)),
        _ => std::str::from_utf8(bytes).map_or((), judge),
    }
}

fn judge(text: &str) {
    let checked = match check(text, "lb.toml") {
        Ok(checked) => checked,
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a reason");
            // The end of the text is a line too, an empty one.
            let lines = text.split('\n').count();
            for problem in problems {
                assert!((1..=lines).contains(&problem.line) && problem.column >= 1, "{problem:?}");
                assert!(!problem.message.is_empty() && !problem.remedy.is_empty(), "{problem:?}");
            }
            return;
        }
    };
    let exported = export(&checked.desired, checked.metrics).expect("what was accepted can be exported");
    let again = match check(&exported, "lb.toml") {
        Ok(again) => again,
        Err(problems) => panic!("the export is refused: {problems:?}\n{exported}"),
    };
    assert_eq!((again.desired, again.metrics), (checked.desired, checked.metrics), "{exported}");
}
