//! What `testpmd` answers.

use anyhow::{Context as _, ensure};

/// How far off a size may seem: less than sizes of cases differ.
const BURST_APART: f64 = 0.05;

/// What came in a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Throughput {
    /// Packets.
    pub(super) packets: u64,
    /// Their bits.
    pub(super) bits: u64,
}

/// The throughput that `show port stats` prints: since the one before, by the clock that `testpmd` reads together with its counters.
pub(super) fn throughput(text: &str) -> anyhow::Result<Throughput> {
    Ok(Throughput { packets: number(text, "Rx-pps:")?, bits: number(text, "Rx-bps:")? })
}

/// Checks that packets had `size` bytes. Both counters are not read at once, so that they are a burst apart.
pub(super) fn check_size(looks: &[Throughput], size: u32) -> anyhow::Result<()> {
    let sum = |of: fn(&Throughput) -> u64| looks.iter().map(of).sum::<u64>() as f64;
    let bytes = sum(|look| look.bits) / 8.0 / sum(|look| look.packets);
    let size = f64::from(size);
    ensure!((bytes - size).abs() < size * BURST_APART, "packets had {bytes} bytes in place of {size}");
    Ok(())
}

/// How many packets had been sent and had not come back, from what `stop` prints.
pub(super) fn under_way(text: &str) -> anyhow::Result<u64> {
    let [sent, came] = ["TX-packets:", "RX-packets:"].map(|label| number(text, label));
    let (sent, came) = (sent?, came?);
    sent.checked_sub(came).with_context(|| format!("{sent} packets were sent, and {came} came back"))
}

/// The number after the first such label.
fn number(text: &str, label: &str) -> anyhow::Result<u64> {
    let missing = || format!("no number at {label} in {text:?}");
    let (_, rest) = text.split_once(label).with_context(missing)?;
    rest.split_whitespace().next().and_then(|word| word.parse().ok()).with_context(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of testpmd 22.11, on a terminal.
    const SHOWN: &str = "show port stats 0\r\r\n\r
  ######################## NIC statistics for port 0  ########################\r
  RX-packets: 171109     RX-missed: 0          RX-bytes:  10950976\r
  RX-errors: 0\r
  RX-nombuf:  0         \r
  TX-packets: 171110     TX-errors: 0          TX-bytes:  10951040\r
\r
  Throughput (since last show)\r
  Rx-pps:       987300          Rx-bps:    505497712\r
  Tx-pps:       987300          Tx-bps:    505497712\r
  ############################################################################\r
";
    const STOPPED: &str = "stop\r\r\nTelling cores to stop...\r
Waiting for lcores to finish...\r
\r
  ---------------------- Forward statistics for port 0  ----------------------\r
  RX-packets: 159904         RX-dropped: 0             RX-total: 159904\r
  TX-packets: 159968         TX-dropped: 0             TX-total: 159968\r
  ----------------------------------------------------------------------------\r
\r
  +++++++++++++++ Accumulated forward statistics for all ports+++++++++++++++\r
  RX-packets: 159904         RX-dropped: 0             RX-total: 159904\r
  TX-packets: 159968         TX-dropped: 0             TX-total: 159968\r
  ++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++\r
\r
Done.\r
";
    /// When nothing came.
    const SILENT: &str = "  Rx-pps:            0          Rx-bps:            0\r\n";

    #[test]
    fn packets_are_counted_by_the_second() {
        let look = throughput(SHOWN).expect("a look");
        assert_eq!(look, Throughput { packets: 987_300, bits: 505_497_712 });
        assert_eq!(throughput(SILENT).expect("a look").packets, 0);
    }

    #[test]
    fn packets_of_another_size_are_an_error() {
        let look = throughput(SHOWN).expect("a look");
        assert!(check_size(&[look], 64).is_ok());
        // Packets of a burst whose bytes are counted later.
        let late = Throughput { packets: 5000, bits: 2_550_000 };
        assert!(check_size(&[look, late], 64).is_ok());
        for wrong in [60, 68, 256] {
            assert!(check_size(&[look], wrong).is_err(), "{wrong}");
        }
        assert!(check_size(&[], 64).is_err());
    }

    #[test]
    fn packets_under_way_are_those_that_did_not_come_back() {
        assert_eq!(under_way(STOPPED).expect("counters"), 64);
        assert!(under_way("RX-packets: 2\r\n TX-packets: 1\r\n").is_err());
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        for text in ["", "Command not found\r\n", "  Rx-pps:", "  Rx-pps: many"] {
            assert!(throughput(text).is_err(), "{text}");
            assert!(under_way(text).is_err(), "{text}");
        }
    }
}
