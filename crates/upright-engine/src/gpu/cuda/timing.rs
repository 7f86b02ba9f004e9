//! The time of a launch, between two events of the stream.

use cudarc::driver::{
    result::{self, DriverError},
    sys,
};
use upright_base::Error;

use super::failed;

/// The CUDA version of the oldest driver that reads the time between two events (`cuEventElapsedTime_v2`).
pub(super) const OLDEST_DRIVER: (u32, u32) = (12, 8);

/// A launch with an event before it and one after it.
pub(super) struct TimedLaunch {
    name: &'static str,
    start: Event,
    end: Event,
}

struct Event(sys::CUevent);

// SAFETY: the driver allows the use of an event on any thread.
unsafe impl Send for Event {}

impl Event {
    fn new() -> Result<Self, DriverError> {
        result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT).map(Self)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: nothing uses the event afterwards. An error at the end is of no use to anybody.
        let _ = unsafe { result::event::destroy(self.0) };
    }
}

impl TimedLaunch {
    /// Records the first event.
    pub(super) fn begin(name: &'static str, stream: sys::CUstream) -> Result<Self, Error> {
        let open = || -> Result<Self, DriverError> {
            let (start, end) = (Event::new()?, Event::new()?);
            // SAFETY: the event was created above, and the caller's stream lives.
            unsafe { result::event::record(start.0, stream) }?;
            Ok(Self { name, start, end })
        };
        open().map_err(|error| failed("measure a launch", error))
    }

    /// Records the second event.
    pub(super) fn end(&self, stream: sys::CUstream) -> Result<(), Error> {
        // SAFETY: the event lives as long as this launch, and the caller's stream lives.
        let recorded = unsafe { result::event::record(self.end.0, stream) };
        recorded.map_err(|error| failed("measure a launch", error))
    }

    /// Name of the kernel.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Seconds between the events. The stream has reached both of them.
    pub(super) fn seconds(&self) -> Result<f64, Error> {
        // SAFETY: both events were recorded on one stream, and they live as long as this launch.
        let milliseconds = unsafe { result::event::elapsed(self.start.0, self.end.0) };
        let milliseconds = milliseconds.map_err(|error| failed("measure a launch", error))?;
        Ok(f64::from(milliseconds) / 1e3)
    }
}
