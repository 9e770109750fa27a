//! The clock of kernel time: `bpf_ktime_get_ns` reads CLOCK_MONOTONIC, so the agent must read that too.

use nix::time::{ClockId, clock_gettime};

/// Now, in nanoseconds of CLOCK_MONOTONIC.
///
/// The call cannot fail on Linux (the clock always exists); should it, 0 is returned, which holds packets
/// back instead of letting them out of order.
#[must_use]
pub fn monotonic_ns() -> u64 {
    nanoseconds(ClockId::CLOCK_MONOTONIC)
}

/// What to add to kernel time to get nanoseconds since the Unix epoch.
///
/// The two clocks drift apart where the wall clock is set or slewed, so a long-running agent asks again.
/// Of three readings the tightest counts: a reading torn by the scheduler would shift every span.
#[must_use]
pub fn offset_to_unix_ns() -> i64 {
    let reading = || {
        let before = monotonic_ns();
        let wall = nanoseconds(ClockId::CLOCK_REALTIME);
        let after = monotonic_ns();
        let middle = before + (after - before) / 2;
        (after - before, wall.cast_signed().wrapping_sub(middle.cast_signed()))
    };
    [reading(), reading(), reading()].into_iter().min().map_or(0, |(_, offset)| offset)
}

/// Processor time that this process has used since it began, in nanoseconds.
#[must_use]
pub fn process_ns() -> u64 {
    nanoseconds(ClockId::CLOCK_PROCESS_CPUTIME_ID)
}

fn nanoseconds(clock: ClockId) -> u64 {
    clock_gettime(clock).map_or(0, |time| {
        time.tv_sec().cast_unsigned().wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec().cast_unsigned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_leads_from_kernel_time_to_wall_time() {
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
        let ours = i128::from(monotonic_ns()) + i128::from(offset_to_unix_ns());
        assert!((ours - i128::try_from(wall).unwrap()).abs() < 1_000_000_000);
    }
}
