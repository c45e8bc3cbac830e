//! The values of a categorical column as keys, and where each of a short list of them stands.

use serde::{Deserialize, Serialize};

/// A finite value by its bits. −0 is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Code(u64);

impl Code {
    /// `None` for NaN and ±∞.
    pub fn of(value: f64) -> Option<Code> {
        value.is_finite().then(|| Code((value + 0.0).to_bits()))
    }

    pub fn value(self) -> f64 {
        f64::from_bits(self.0)
    }

    /// Whether `of` could have made it: what comes from a file may not be.
    pub fn is_sound(self) -> bool {
        Code::of(self.value()) == Some(self)
    }

    /// SplitMix64's finalizer of the bits of the value as `f64`, plus its increment (Steele, Lea, Flood, 2014): the same on every machine
    /// and for every element type, so that sketches of different origin can be merged.
    pub fn hash(self) -> u64 {
        let x = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }
}

/// Most entries of a list that [`Places`] can index.
pub(super) const MOST_PLACES: usize = 256;
/// Twice as many, so that runs are short. Whoever chooses values for their hashes makes them [`MOST_PLACES`] long at worst.
const SLOTS: usize = 2 * MOST_PLACES;
const EMPTY: u16 = u16::MAX;

/// Where in a list of distinct codes each of them stands: open addressing with linear probing. The list itself is the caller's.
#[derive(Clone, Debug)]
pub(super) struct Places(Box<[u16; SLOTS]>);

impl Default for Places {
    fn default() -> Places {
        Places(Box::new([EMPTY; SLOTS]))
    }
}

impl Places {
    /// Of a list from a file. `None` if it has more than [`MOST_PLACES`] codes, one of them twice, or what is no code.
    pub fn of(codes: impl ExactSizeIterator<Item = Code>) -> Option<Places> {
        if codes.len() > MOST_PLACES {
            return None;
        }
        let (mut places, list) = (Places::default(), codes.collect::<Vec<_>>());
        for (at, code) in list.iter().enumerate() {
            if !code.is_sound() || places.find(*code, |at| list[at]).is_some() {
                return None;
            }
            places.insert(*code, at);
        }
        Some(places)
    }

    fn home(code: Code) -> usize {
        code.hash() as usize % SLOTS
    }

    /// The slot that holds the code's place, or the empty one where it would be.
    fn slot(&self, code: Code, code_at: impl Fn(usize) -> Code) -> usize {
        let mut slot = Self::home(code);
        while self.0[slot] != EMPTY && code_at(self.0[slot].into()) != code {
            slot = (slot + 1) % SLOTS;
        }
        slot
    }

    /// Where the code stands in the list, if it does.
    pub fn find(&self, code: Code, code_at: impl Fn(usize) -> Code) -> Option<usize> {
        let at = self.0[self.slot(code, code_at)];
        (at != EMPTY).then_some(at.into())
    }

    /// A code that is not in the list yet is going to stand at `at`.
    pub fn insert(&mut self, code: Code, at: usize) {
        let mut slot = Self::home(code);
        while self.0[slot] != EMPTY {
            slot = (slot + 1) % SLOTS;
        }
        self.0[slot] = at as u16;
    }

    /// Two codes of the list are going to change places.
    pub fn swap(&mut self, [a, b]: [usize; 2], code_at: impl Fn(usize) -> Code) {
        let slots = [a, b].map(|at| self.slot(code_at(at), &code_at));
        self.0.swap(slots[0], slots[1]);
    }

    /// A code is going to leave the list. Those behind it in its run move up where they may, so that none is cut off from its home.
    pub fn remove(&mut self, code: Code, code_at: impl Fn(usize) -> Code) {
        let mut hole = self.slot(code, &code_at);
        let mut slot = hole;
        self.0[hole] = EMPTY;
        loop {
            slot = (slot + 1) % SLOTS;
            if self.0[slot] == EMPTY {
                return;
            }
            let from_home = |to: usize| (to + SLOTS - Self::home(code_at(self.0[slot].into()))) % SLOTS;
            if from_home(hole) <= from_home(slot) {
                self.0.swap(hole, slot);
                hole = slot;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn places_are_those_of_the_list_whatever_is_inserted_swapped_and_removed(
            steps in prop::collection::vec((0..3u8, 0..400u32, 0..1000usize), 0..2000),
        ) {
            let (mut list, mut places) = (Vec::<Code>::new(), Places::default());
            for (what, value, at) in steps {
                let code = Code::of(f64::from(value)).unwrap();
                let found = places.find(code, |at| list[at]);
                prop_assert_eq!(found, list.iter().position(|c| *c == code));
                match (what, found, list.len()) {
                    (0, None, ..MOST_PLACES) => {
                        places.insert(code, list.len());
                        list.push(code);
                    }
                    (1, Some(a), len) => {
                        let b = at % len;
                        places.swap([a, b], |at| list[at]);
                        list.swap(a, b);
                    }
                    (2, Some(a), len) => {
                        places.swap([a, len - 1], |at| list[at]);
                        list.swap(a, len - 1);
                        places.remove(code, |at| list[at]);
                        list.pop();
                    }
                    _ => {}
                }
            }
            for (at, code) in list.iter().enumerate() {
                prop_assert_eq!(places.find(*code, |at| list[at]), Some(at));
            }
        }
    }

    #[test]
    fn a_list_that_is_too_long_or_repeats_itself_has_no_places() {
        let codes = |values: &[f64]| values.iter().map(|x| Code::of(*x).unwrap()).collect::<Vec<_>>();
        assert!(Places::of(codes(&[1.0, 2.0]).into_iter()).is_some());
        assert!(Places::of(codes(&[1.0, 1.0]).into_iter()).is_none());
        assert!(Places::of((0..257).map(|i| Code(f64::from(i).to_bits()))).is_none());
        assert!(Places::of([Code((-0.0f64).to_bits())].into_iter()).is_none());
        assert!(Places::of([Code(f64::NAN.to_bits())].into_iter()).is_none());
    }

    #[test]
    fn the_hash_is_the_documented_one() {
        // SplitMix64's first output for the seed 0 is that of the value 0.
        assert_eq!(Code::of(0.0).unwrap().hash(), 0xE220_A839_7B1D_CDAF);
        assert_eq!(Code::of(-0.0), Code::of(0.0));
    }
}
