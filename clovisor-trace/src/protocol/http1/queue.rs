//! The exchanges of one connection, oldest first.
//!
//! Most connections have one at a time, which is at hand without a look into a list; a connection at rest has no room for any.
//!
//! Invariant: where there is no first, there are no more.

use std::collections::VecDeque;

use super::pending::Pending;

/// Boxed, since an exchange is large and a connection at rest has none.
#[derive(Default)]
pub(super) struct Queue {
    first: Option<Box<Pending>>,
    #[expect(clippy::box_collection, reason = "a quarter of the room where there are none, in each flow")]
    more: Option<Box<VecDeque<Box<Pending>>>>,
}

impl Queue {
    /// Limits keep it far below what this could not tell.
    #[inline]
    pub(super) fn len(&self) -> u32 {
        let more = self.more.as_ref().map_or(0, |more| more.len());
        u32::from(self.first.is_some()).saturating_add(u32::try_from(more).unwrap_or(u32::MAX))
    }

    #[inline]
    pub(super) fn front(&self) -> Option<&Pending> {
        self.first.as_deref()
    }

    #[inline]
    pub(super) fn front_mut(&mut self) -> Option<&mut Pending> {
        self.first.as_deref_mut()
    }

    #[inline]
    pub(super) fn back(&self) -> Option<&Pending> {
        match self.more.as_ref().and_then(|more| more.back()) {
            Some(newest) => Some(newest),
            None => self.front(),
        }
    }

    #[inline]
    pub(super) fn back_mut(&mut self) -> Option<&mut Pending> {
        match self.more.as_mut().and_then(|more| more.back_mut()) {
            Some(newest) => Some(newest),
            None => self.first.as_deref_mut(),
        }
    }

    #[inline]
    pub(super) fn push_back(&mut self, pending: Box<Pending>) {
        if self.first.is_none() {
            self.first = Some(pending);
        } else {
            self.more.get_or_insert_default().push_back(pending);
        }
    }

    #[inline]
    pub(super) fn pop_front(&mut self) -> Option<Box<Pending>> {
        let front = self.first.take();
        if let Some(more) = &mut self.more {
            self.first = more.pop_front();
            if more.is_empty() {
                self.more = None;
            }
        }
        front
    }

    #[inline]
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Pending> {
        let more = self.more.iter().flat_map(|more| more.iter());
        self.first.iter().chain(more).map(|pending| &**pending)
    }

    #[inline]
    pub(super) fn iter_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut Pending> {
        let more = self.more.iter_mut().flat_map(|more| more.iter_mut());
        self.first.iter_mut().chain(more).map(|pending| &mut **pending)
    }

    /// Does something with each.
    #[inline]
    pub(super) fn each(&mut self, mut act: impl FnMut(&mut Pending)) {
        if let Some(first) = &mut self.first {
            act(first);
        }
        if let Some(more) = &mut self.more {
            more.iter_mut().for_each(|pending| act(pending));
        }
    }

    /// With their places.
    pub(super) fn places(&self) -> impl DoubleEndedIterator<Item = (usize, &Pending)> {
        let more = self.more.iter().flat_map(|more| more.iter().enumerate());
        let more = more.map(|(at, pending)| (at + 1, &**pending));
        self.front().into_iter().map(|first| (0, first)).chain(more)
    }

    /// The oldest whose response is not done.
    #[inline]
    pub(super) fn unanswered(&self) -> Option<&Pending> {
        match self.front() {
            Some(first) if !first.response_done => Some(first),
            first => first.and_then(|_| self.iter().find(|pending| !pending.response_done)),
        }
    }

    /// The same, to write to.
    #[inline]
    pub(super) fn unanswered_mut(&mut self) -> Option<&mut Pending> {
        if self.front().is_some_and(|first| !first.response_done) {
            return self.front_mut();
        }
        self.iter_mut().find(|pending| !pending.response_done)
    }
}
