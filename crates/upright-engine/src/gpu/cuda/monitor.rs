//! Utilization and energy of a card while the program runs, as NVIDIA's management library (NVML) reports them. Utilization is the share
//! of time in which a kernel ran.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use nvml_wrapper::Nvml;

/// Time between two readings. The library averages over a period of up to a second.
const PERIOD: Duration = Duration::from_millis(200);

/// Reads a card's utilization on a thread of its own.
pub(super) struct Monitor {
    nvml: Arc<Nvml>,
    uuid: String,
    busy: Arc<Mutex<f64>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Monitor {
    /// Starts to read the card with this UUID. `None` if the library or the reading is missing, as in some containers.
    pub(super) fn start(uuid: String) -> Option<Self> {
        let nvml = ["libnvidia-ml.so.1", "nvml.dll"]
            .iter()
            .find_map(|name| Nvml::builder().lib_path(name.as_ref()).init().ok())?;
        nvml.device_by_uuid(uuid.as_str())
            .ok()?
            .utilization_rates()
            .ok()?;
        let (busy, stop) = (Arc::new(Mutex::new(0.0)), Arc::new(AtomicBool::new(false)));
        let nvml = Arc::new(nvml);
        let (own_busy, own_stop) = (Arc::clone(&busy), Arc::clone(&stop));
        let (own_nvml, own_uuid) = (Arc::clone(&nvml), uuid.clone());
        let read = move || {
            let mut last = Instant::now();
            while !own_stop.load(Ordering::Relaxed) {
                std::thread::sleep(PERIOD);
                let Ok(rates) = own_nvml
                    .device_by_uuid(own_uuid.as_str())
                    .and_then(|device| device.utilization_rates())
                else {
                    continue;
                };
                let now = Instant::now();
                let share = f64::from(rates.gpu) / 100.0;
                *own_busy.lock().unwrap_or_else(PoisonError::into_inner) +=
                    share * (now - last).as_secs_f64();
                last = now;
            }
        };
        let thread = std::thread::Builder::new()
            .name("gpu-monitor".to_owned())
            .spawn(read)
            .ok()?;
        Some(Self {
            nvml,
            uuid,
            busy,
            stop,
            thread: Some(thread),
        })
    }

    /// Energy of the whole card in joules, since its driver was loaded. `None` if the card does not count it.
    pub(super) fn energy_joules(&self) -> Option<f64> {
        let device = self.nvml.device_by_uuid(self.uuid.as_str()).ok()?;
        Some(device.total_energy_consumption().ok()? as f64 / 1e3)
    }

    /// Seconds in which a kernel ran, since the start.
    pub(super) fn busy_seconds(&self) -> f64 {
        *self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The name of a UUID in NVIDIA's tools: `GPU-` and five groups of hexadecimal digits.
pub(super) fn name_of(uuid: [u8; 16]) -> String {
    let mut name = "GPU-".to_owned();
    for (index, byte) in uuid.iter().enumerate() {
        if [4, 6, 8, 10].contains(&index) {
            name.push('-');
        }
        name += &format!("{byte:02x}");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_written_as_by_nvidia_smi() {
        let bytes: [u8; 16] = std::array::from_fn(|index| 17 * index as u8);
        let name = "GPU-00112233-4455-6677-8899-aabbccddeeff";
        assert_eq!(name_of(bytes), name);
    }

    #[test]
    fn a_card_that_is_not_there_is_not_read() {
        assert!(Monitor::start(name_of([0; 16])).is_none());
    }
}
