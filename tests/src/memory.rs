//! How much memory a process has for itself.

/// Kilobytes that a process has written and shares with nobody: those of its stack, and all others.
///
/// Mappings of shared memory do not count: there a page is called private while one process happens to be the
/// only one to have touched it.
///
/// # Panics
/// If there is no such process.
pub fn private_kilobytes(pid: u32) -> (u64, u64) {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps")).expect("the process runs");
    let (mut stack, mut others) = (0, 0);
    let (mut is_shared, mut is_stack) = (false, false);
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("Private_Dirty:"), Some(_)) if is_shared => {}
            (Some("Private_Dirty:"), Some(size)) => {
                let place = if is_stack { &mut stack } else { &mut others };
                *place += size.parse::<u64>().expect("a size is a number");
            }
            (Some(first), Some(permissions)) if !first.ends_with(':') => {
                is_shared = permissions.ends_with('s');
                is_stack = line.ends_with("[stack]");
            }
            _ => {}
        }
    }
    (stack, others)
}
