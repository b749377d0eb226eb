//! The faults that wait for their calls.

use std::time::Duration;

use super::{Fault, FaultKind};
use crate::log::Endpoint;
use crate::settings::Generation;

/// The fault that strikes one call.
pub(crate) struct Chosen {
    pub(crate) kind: FaultKind,
    pub(crate) delay: Duration,
    /// Whether the call is processed.
    pub(crate) processed: bool,
}

/// Waiting faults, the oldest first.
#[derive(Default)]
pub(crate) struct FaultQueue(Vec<Waiting>);

struct Waiting {
    fault: Fault,
    /// The chance of a flaky fault, begun at its seed.
    chance: fastrand::Rng,
}

impl FaultQueue {
    pub(crate) fn add(&mut self, fault: Fault) {
        let seed = if let FaultKind::Flaky { seed, .. } = fault.kind { seed } else { 0 };
        self.0.push(Waiting { fault, chance: fastrand::Rng::with_seed(seed) });
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// What still waits, with the number of times left.
    pub(crate) fn waiting(&self) -> Vec<Fault> {
        self.0.iter().map(|waiting| waiting.fault.clone()).collect()
    }

    /// The fault for this call: the oldest one that fits. A flaky one that chance spares lets the next one try.
    pub(crate) fn strike(&mut self, endpoint: Endpoint, generation: Option<Generation>) -> Option<Chosen> {
        let (place, chosen) = self
            .0
            .iter_mut()
            .enumerate()
            .find_map(|(place, waiting)| Some((place, waiting.strike(endpoint, generation)?)))?;
        if self.0[place].fault.times == Some(0) {
            self.0.remove(place);
        }
        Some(chosen)
    }
}

impl Waiting {
    fn strike(&mut self, endpoint: Endpoint, generation: Option<Generation>) -> Option<Chosen> {
        let fault = &mut self.fault;
        if !fault.kind.fits(endpoint, generation) || !fault.target.covers(endpoint) {
            return None;
        }
        let kind = match &fault.kind {
            FaultKind::Flaky { probability, kinds, .. } => {
                if self.chance.f64() >= *probability {
                    return None;
                }
                let kind = self.chance.choice(kinds)?;
                kind.fits(endpoint, generation).then(|| kind.clone())?
            }
            kind => kind.clone(),
        };
        fault.times = fault.times.map(|left| left.saturating_sub(1));
        Some(Chosen { delay: fault.delay, processed: fault.processed || !kind.stands_in(), kind })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Target;
    use super::*;

    fn struck(queue: &mut FaultQueue, endpoint: Endpoint) -> Option<&'static str> {
        queue.strike(endpoint, Some(Generation::V2)).map(|chosen| chosen.kind.name())
    }

    #[test]
    fn a_fault_strikes_as_often_as_told_and_the_oldest_goes_first() {
        let mut queue = FaultQueue::default();
        queue.add(Fault::new(FaultKind::Hang).times(2));
        queue.add(Fault::new(FaultKind::Empty).until_cleared());
        let names: Vec<_> = (0..4).filter_map(|_| struck(&mut queue, Endpoint::Login)).collect();
        assert_eq!(names, ["hang", "hang", "empty", "empty"]);
        queue.clear();
        assert_eq!(struck(&mut queue, Endpoint::Login), None);
    }

    #[test]
    fn a_fault_waits_for_its_target() {
        let mut queue = FaultQueue::default();
        queue.add(Fault::new(FaultKind::Hang).on(Target::Refresh));
        assert_eq!(struck(&mut queue, Endpoint::Login), None);
        assert_eq!(struck(&mut queue, Endpoint::Wallet), None);
        assert_eq!(struck(&mut queue, Endpoint::Refresh), Some("hang"));
    }

    #[test]
    fn a_wrong_sign_waits_for_an_answer_that_has_one() {
        let mut queue = FaultQueue::default();
        queue.add(Fault::new(FaultKind::WrongSign));
        assert_eq!(struck(&mut queue, Endpoint::Refresh), None);
        assert!(queue.strike(Endpoint::Login, Some(Generation::V3)).is_none());
        assert_eq!(struck(&mut queue, Endpoint::Login), Some("wrong_sign"));
    }

    #[test]
    fn the_same_seed_strikes_the_same_calls() {
        let run = |seed| {
            let mut queue = FaultQueue::default();
            let kinds = vec![FaultKind::Hang, FaultKind::Empty];
            queue.add(Fault::new(FaultKind::Flaky { probability: 0.5, seed, kinds }).until_cleared());
            (0..64).map(|_| struck(&mut queue, Endpoint::Login)).collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
        assert!(run(7).contains(&None) && run(7).contains(&Some("empty")) && run(7).contains(&Some("hang")));
    }
}
