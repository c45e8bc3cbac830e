//! Versions of one model report in a fixed order: period by period, and of a period in the order of their bytes. So each report finds what it
//! is compared with, and the same records give the same reports in the same order, whichever ring is read first.

use super::{Closed, Intake, Model, Tail};
use std::collections::HashSet;
use std::time::{Duration, Instant};
use tracing::warn;

/// How long a report waits for those before it. Usually they come at the same moment.
const MOST_HELD: Duration = Duration::from_secs(5);
/// A version that was waited for in vain holds up nobody for so long.
const NOT_WAITED_FOR: Duration = Duration::from_secs(300);

/// When a report's turn is among those of all versions of its model.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Turn<'a> {
    start_ns: u64,
    version: &'a str,
    columns: u32,
    model: u64,
}

impl Turn<'_> {
    fn of(id: u64, model: &Model, start_ns: u64) -> Turn<'_> {
        Turn { start_ns, version: &model.spec.version, columns: model.columns, model: id }
    }
}

impl Tail {
    /// The closed period that is reported next: of the models whose first is ready, the one that has had the least of the closing thread.
    pub(super) fn next_period(&self) -> Option<usize> {
        let mut models = HashSet::new();
        let firsts = self.closed.iter().enumerate().filter(|(_, closed)| models.insert(closed.model));
        let spent = |closed: &Closed| self.models.get(&closed.model).map_or(0, Model::spent);
        let mut firsts: Vec<_> = firsts.collect();
        firsts.sort_by_key(|(_, closed)| spent(closed));
        let is_ready = |closed: &Closed| self.models.get(&closed.model).is_none_or(|model| !model.is_uncommitted());
        firsts.into_iter().find(|(_, closed)| is_ready(closed) && !self.is_held(closed)).map(|(at, _)| at)
    }

    /// Whether some version's report comes before it, and has not been made.
    fn is_held(&self, closed: &Closed) -> bool {
        let is_new = closed.since.elapsed() < MOST_HELD;
        (is_new && !self.all_attached) || self.waits_for(closed).next().is_some()
    }

    /// Nobody is waited for longer than is told.
    pub(super) fn give_up_waiting(&mut self) {
        let overdue = self.closed.iter().filter(|closed| closed.since.elapsed() >= MOST_HELD);
        let late: HashSet<u64> = overdue.flat_map(|closed| self.waits_for(closed)).collect();
        for id in late {
            let Some(model) = self.models.get_mut(&id) else { continue };
            let (model_name, version) = (&model.spec.model, &model.spec.version);
            warn!(model = model_name, version, "is behind its other versions: they report without it");
            model.not_waited_for_until = Some(Instant::now() + NOT_WAITED_FOR);
        }
    }

    fn waits_for<'a>(&'a self, closed: &'a Closed) -> impl Iterator<Item = u64> + 'a {
        let this = self.models.get(&closed.model);
        this.into_iter().flat_map(move |this| {
            let turn = Turn::of(closed.model, this, closed.period.start_ns);
            let others = self.models.iter().filter(move |(id, other)| {
                **id != closed.model
                    && other.spec.model == this.spec.model
                    && other.period == this.period
                    && !other.superseded
                    && other.not_waited_for_until.is_none_or(|until| until <= Instant::now())
                    && self.next_start(**id, other).is_some_and(|start| Turn::of(**id, other, start) < turn)
            });
            others.map(|(id, _)| *id)
        })
    }

    /// Start of the first period with rows that is still to be reported, as far as can be seen.
    fn next_start(&self, id: u64, model: &Model) -> Option<u64> {
        let closed = self.closed.iter().find(|closed| closed.model == id).map(|closed| closed.period.start_ns);
        if self.stopping {
            return closed;
        }
        let open = model.periods.first_start_ns();
        let now = super::now_ns();
        let of_model = self.intakes.iter().filter(|intake| intake.model == id);
        let unread = of_model.filter_map(|intake: &Intake| intake.waiting_from(now)).min();
        let unread = unread.map(|ts_ns| model.periods.start_for(ts_ns));
        [closed, open, unread].into_iter().flatten().min()
    }

    /// Whether there is another version of its model to compare it with.
    pub(super) fn has_versions(&self, closed: &Closed) -> bool {
        let is_another = |model: &Model, other: &Model| {
            other.spec.model == model.spec.model && other.spec.version != model.spec.version
        };
        let this = self.models.get(&closed.model);
        this.is_some_and(|this| self.models.values().any(|other| is_another(this, other)))
    }
}
