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
        let more_may_come = !self.all_attached && !self.stopping && closed.since.elapsed() < MOST_HELD;
        more_may_come || self.waits_for(closed).next().is_some()
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

#[cfg(test)]
mod tests {
    use super::super::{Outlet, Settings, ToClose, closing};
    use super::*;
    use crate::checkpoint::Store;
    use crate::profile::{Rows, Spec};
    use crate::stats::Columns;
    use crossbeam::channel::bounded;
    use ndarray::ArrayView2;

    const SECOND: u64 = 1_000_000_000;
    const NOW: u64 = 1_700_000_000 * SECOND;

    /// Models of these names and versions, by number, all of whose rings are open.
    fn tail(dir: &std::path::Path, models: &[(&str, &str)]) -> Tail {
        let (store, _) = Store::open(dir).unwrap();
        let mut tail = Tail::new(Settings::of_test(dir), bounded(closing::QUEUE).0, store, 0);
        tail.all_attached = true;
        for (id, (model, version)) in (0..).zip(models) {
            let classes = ["no", "yes"].map(String::from).to_vec();
            let spec = Spec { model: (*model).into(), version: (*version).into(), classes, ..Spec::default() };
            let checkpoint = tail.store.new_checkpoint();
            tail.models.insert(id, Model::new(id, spec, Duration::from_secs(1), 1, 0, [0, NOW], checkpoint));
        }
        tail
    }

    /// A row of a model in the n-th period, which pushes out those long before.
    fn feed(tail: &mut Tail, model: u64, period: u64) {
        let probabilities = Some(Columns::F64(ArrayView2::from_shape((1, 2), &[0.25, 0.75]).unwrap()));
        let rows = Rows { count: 1, probabilities, ..Rows::default() };
        let mut out = Outlet { closed: &mut tail.closed, store: &tail.store };
        tail.models.get_mut(&model).unwrap().feed("i", NOW + period * SECOND, &rows, NOW + 100 * SECOND, &mut out);
    }

    fn close_all(tail: &mut Tail, model: u64) {
        tail.models.get_mut(&model).unwrap().close_all(&mut Outlet { closed: &mut tail.closed, store: &tail.store });
    }

    /// Version and period of the reports that are made next.
    fn next(tail: &mut Tail) -> Vec<(String, u64)> {
        let now = Instant::now();
        tail.models.values_mut().for_each(|model| model.commit(Vec::new(), &tail.store, now));
        tail.give_up_waiting();
        let next = std::iter::from_fn(|| {
            let Some(ToClose::Period(closed)) = tail.next_for_closing() else { return None };
            let model = tail.models.get_mut(&closed.model).unwrap();
            model.handed_over(1);
            Some((model.spec.version.clone(), (closed.period.start_ns - NOW) / SECOND))
        });
        next.collect()
    }

    fn told(of: &[(&str, u64)]) -> Vec<(String, u64)> {
        of.iter().map(|(version, period)| ((*version).to_owned(), *period)).collect()
    }

    #[test]
    fn versions_report_period_by_period_in_the_order_of_their_bytes_whichever_closes_first() {
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let dir = tempfile::tempdir().unwrap();
            let mut tail = tail(dir.path(), &[("m", "2"), ("m", "10"), ("m", "3")]);
            for model in order {
                feed(&mut tail, model, 0);
                feed(&mut tail, model, 1);
            }
            let mut all = Vec::new();
            for model in order {
                close_all(&mut tail, model);
                all.extend(next(&mut tail));
            }
            assert_eq!(all, told(&[("10", 0), ("2", 0), ("3", 0), ("10", 1), ("2", 1), ("3", 1)]), "{order:?}");
        }
    }

    #[test]
    fn another_model_or_a_version_that_has_nothing_to_say_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let mut tail = tail(dir.path(), &[("m", "2"), ("m", "1"), ("another", "1")]);
        feed(&mut tail, 2, 0);
        feed(&mut tail, 0, 0);
        close_all(&mut tail, 0);
        assert_eq!(next(&mut tail), told(&[("2", 0)]));
    }

    #[test]
    fn a_version_that_keeps_others_waiting_does_so_for_a_while_and_then_not_again_soon() {
        let dir = tempfile::tempdir().unwrap();
        let mut tail = tail(dir.path(), &[("m", "2"), ("m", "1")]);
        feed(&mut tail, 1, 0);
        feed(&mut tail, 0, 0);
        feed(&mut tail, 0, 1);
        close_all(&mut tail, 0);
        assert_eq!(next(&mut tail), told(&[]));
        tail.closed.iter_mut().for_each(|closed| closed.since -= MOST_HELD);
        assert_eq!(next(&mut tail), told(&[("2", 0), ("2", 1)]));
        feed(&mut tail, 0, 2);
        close_all(&mut tail, 0);
        assert_eq!(next(&mut tail), told(&[("2", 2)]), "it is still behind");
        tail.models.get_mut(&1).unwrap().not_waited_for_until = Some(Instant::now());
        feed(&mut tail, 0, 3);
        close_all(&mut tail, 0);
        assert_eq!(next(&mut tail), told(&[]));
        close_all(&mut tail, 1);
        assert_eq!(next(&mut tail), told(&[("1", 0), ("2", 3)]));
    }

    #[test]
    fn nothing_is_reported_before_every_ring_that_was_there_is_open_and_everything_when_it_stops() {
        let dir = tempfile::tempdir().unwrap();
        let mut tail = tail(dir.path(), &[("m", "2"), ("m", "1")]);
        (tail.all_attached, tail.stopping) = (false, false);
        feed(&mut tail, 0, 0);
        feed(&mut tail, 1, 1);
        close_all(&mut tail, 0);
        assert_eq!(next(&mut tail), told(&[]));
        tail.all_attached = true;
        assert_eq!(next(&mut tail), told(&[("2", 0)]));
        feed(&mut tail, 0, 1);
        close_all(&mut tail, 0);
        assert_eq!(next(&mut tail), told(&[]));
        (tail.all_attached, tail.stopping) = (false, true);
        assert_eq!(next(&mut tail), told(&[("2", 1)]), "what is open then is none that closes");
    }
}
