//! When to let small messages gather in the socket instead of reading each as it comes.
//!
//! A BEAM writes every message with a system call of its own. A reader that keeps up sleeps between any two of them,
//! and each time the writer pays for waking it: the faster the reader, the slower the stream, and both processors
//! are busy with wake-ups. Network drivers have the same trouble with interrupts, and the same cure: where packets
//! come one after the other, look only now and then.
//!
//! Nobody who waits for an answer shall pay for this. A pause comes only after 20 ms in which the peer sent and was
//! told nothing: what is written to it begins these anew. So a peer that fills a window and then waits for an
//! acknowledgement loses at most a tenth of its time.

use std::time::Duration;

use tokio::time::Instant;

/// How long a pause is: the shortest that Tokio's timer can do, which makes it 1 to 2 ms.
pub(super) const PAUSE: Duration = Duration::from_millis(1);

/// How long a stream must have lasted before the first pause.
const STREAM: Duration = Duration::from_millis(20);

/// A pause comes after so many small reads in a row,
const RUN: u32 = 32;

/// if they took no longer than this: at a slower pace waking the reader costs little.
const RUN_TIME: Duration = Duration::from_millis(1);

/// A read of less than this is small. More, some fifty small messages, has gathered without a pause.
const SMALL: usize = 4 << 10;

/// What the reader of a connection remembers of its last reads.
#[derive(Debug)]
pub(super) struct Pacing {
    stream_since: Instant,
    run_since: Instant,
    run: u32,
    written: u64,
}

impl Pacing {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            stream_since: now,
            run_since: now,
            run: 0,
            written: 0,
        }
    }

    /// Whether to pause, after a read of so many bytes. `written` counts what was written to the peer since the
    /// connection is up.
    pub(super) fn pauses(&mut self, now: Instant, read: usize, written: u64) -> bool {
        if written != self.written {
            *self = Self {
                written,
                ..Self::new(now)
            };
            return false;
        }
        if read >= SMALL {
            self.run = 0;
            return false;
        }
        if self.run == 0 {
            self.run_since = now;
        }
        self.run += 1;
        if self.run < RUN {
            return false;
        }
        self.run = 0;
        let took = now - self.run_since;
        if took >= STREAM {
            self.stream_since = now;
        }
        took <= RUN_TIME && now - self.stream_since >= STREAM
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MICROSECOND: Duration = Duration::from_micros(1);

    /// Reads of this size at this pace for so long, nothing written: how many of them are followed by a pause.
    fn pauses(
        pacing: &mut Pacing,
        now: &mut Instant,
        pace: Duration,
        read: usize,
        time: Duration,
    ) -> usize {
        let end = *now + time;
        let mut pauses = 0;
        while *now < end {
            *now += pace;
            pauses += usize::from(pacing.pauses(*now, read, 0));
        }
        pauses
    }

    #[test]
    fn a_stream_of_small_messages_is_paused_after_20_ms_and_as_long_as_it_lasts() {
        let mut now = Instant::now();
        let mut pacing = Pacing::new(now);
        let pace = 5 * MICROSECOND;
        assert_eq!(pauses(&mut pacing, &mut now, pace, 71, STREAM - pace), 0);
        let reads = 10 * RUN;
        assert_eq!(pauses(&mut pacing, &mut now, pace, 71, reads * pace), 10);
        // What gathered during a pause comes in one read, and small reads follow.
        now += PAUSE;
        assert!(!pacing.pauses(now, 10 * SMALL, 0));
        assert_eq!(pauses(&mut pacing, &mut now, pace, 71, RUN * pace), 1);
    }

    #[test]
    fn neither_a_slow_stream_nor_large_reads_are_paused() {
        let second = Duration::from_secs(1);
        for (pace, read) in [(RUN_TIME / 16, 71), (5 * MICROSECOND, SMALL)] {
            let mut now = Instant::now();
            let mut pacing = Pacing::new(now);
            assert_eq!(pauses(&mut pacing, &mut now, pace, read, second), 0);
        }
    }

    #[test]
    fn a_stream_begins_anew_after_a_silence() {
        let mut now = Instant::now();
        let mut pacing = Pacing::new(now);
        let pace = 5 * MICROSECOND;
        assert!(pauses(&mut pacing, &mut now, pace, 71, 2 * STREAM) > 0);
        assert!(!pacing.pauses(now, 71, 0));
        now += Duration::from_secs(1);
        assert_eq!(pauses(&mut pacing, &mut now, pace, 71, STREAM), 0);
    }

    #[test]
    fn a_conversation_is_never_paused() {
        let mut now = Instant::now();
        let mut pacing = Pacing::new(now);
        for read in 0..100_000 {
            now += 5 * MICROSECOND;
            // A word to the peer every 5 ms.
            assert!(!pacing.pauses(now, 71, read / 1000));
        }
    }
}
