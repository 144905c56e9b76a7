//! The faults of the cards' links.

use serde_json::{Value, json};

use super::Desk;
use crate::port::faults::{BadPlan, Counts, Plan};

/// Sets what `words` say, if they say anything, and reports.
pub(super) fn command(desk: &Desk, words: &[&str]) -> Result<Value, String> {
    let (address, plan) = match *words {
        [] => return Ok(report(desk)),
        [plan] => (None, plan),
        [address, plan] => (Some(address), plan),
        _ => return Err("write: faults, faults PLAN, faults ADDRESS PLAN; off for PLAN ends them".to_owned()),
    };
    let plan = parse(plan).map_err(|error| error.to_string())?;
    let meant =
        |number: &usize| address.is_none_or(|address| desk.nics[*number].address.to_string() == address);
    let numbers: Vec<_> = (0..desk.nics.len()).filter(meant).collect();
    if let (Some(address), []) = (address, &numbers[..]) {
        return Err(format!("no NIC has the address {address:?}"));
    }
    for number in numbers {
        desk.engine.set_faults(number, plan);
    }
    Ok(report(desk))
}

fn parse(plan: &str) -> Result<Option<Plan>, BadPlan> {
    if plan == "off" { Ok(None) } else { plan.parse().map(Some) }
}

fn report(desk: &Desk) -> Value {
    let nics = desk.nics.iter().zip(desk.engine.faults());
    let nics = nics.map(|(nic, faults)| {
        let faults = faults.map(|(plan, Counts { dropped, corrupted, broken })| {
            json!({
                "plan": plan.to_string(), "dropped": dropped, "corrupted": corrupted, "broken": broken,
            })
        });
        json!({ "address": nic.address.to_string(), "faults": faults })
    });
    json!({ "nics": nics.collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::engine::{Engine, NicConfig};
    use crate::monitor::Nic;
    use crate::nic::memory::NicMemory;
    use crate::nic::pacing::Limits;
    use crate::vito::frame::NicAddress;

    fn plans(desk: &Desk, line: &str) -> Vec<Option<String>> {
        let answer = desk.answer(line.as_bytes());
        let nics = answer["nics"].as_array().unwrap_or_else(|| panic!("{answer}"));
        nics.iter().map(|nic| nic["faults"]["plan"].as_str().map(str::to_owned)).collect()
    }

    #[test]
    fn plans_are_set_for_all_links_or_for_one() {
        let memory = Arc::new(NicMemory::new().expect("NIC memory"));
        let nic = |n| Nic { address: NicAddress([2, 0, 0, 0, 0, n]), memory: memory.clone() };
        let nics: Vec<_> = [1, 2].map(nic).into();
        let configs = nics.iter().map(|nic| NicConfig {
            address: nic.address,
            memory: nic.memory.clone(),
            limits: Limits::default(),
            hostility: None,
        });
        let engine = Engine::start(configs.collect()).expect("an engine");
        let desk = Desk { nics, engine: engine.handle() };

        assert_eq!(plans(&desk, "faults"), [None, None]);
        let drop = Some("seed=2,drop=0.5,corrupt=0,break=0".to_owned());
        assert_eq!(plans(&desk, "faults seed=2,drop=0.5"), [drop.clone(), drop.clone()]);
        assert_eq!(desk.answer(b"faults")["nics"][1]["faults"]["dropped"], 0);
        let corrupt = Some("seed=0,drop=0,corrupt=next:1,break=0".to_owned());
        assert_eq!(plans(&desk, "faults 02:00:00:00:00:02 corrupt=next:1"), [drop, corrupt.clone()]);
        assert_eq!(plans(&desk, "faults 02:00:00:00:00:01 off\r"), [None, corrupt.clone()]);
        for (wrong, says) in [
            ("faults nonsense", "nonsense"),
            ("faults drop=7", "probability"),
            ("faults 02:00:00:00:00:09 off", "no NIC"),
            ("faults a b c", "write:"),
        ] {
            let answer = desk.answer(wrong.as_bytes());
            assert!(answer["error"].as_str().is_some_and(|error| error.contains(says)), "{answer}");
        }
        assert_eq!(plans(&desk, "faults"), [None, corrupt], "what is wrong changes nothing");
        assert_eq!(plans(&desk, "faults off"), [None, None]);
        engine.stop();
    }
}
