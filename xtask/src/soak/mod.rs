//! Whether Clovisor holds out: under saturation for as long as is asked, in a control group that bounds its memory.
//!
//! It shares the [`world`](crate::bench::world) of the benchmarks. A [`group`] bounds the memory, the [`subject`] is Clovisor in
//! it, a [`watch`] samples both, and [`law`] says what must hold of the samples. Laws are of counts and bytes, never of times.

pub(crate) mod group;
pub(crate) mod law;
pub(crate) mod maps;
pub(crate) mod subject;
pub(crate) mod watch;
