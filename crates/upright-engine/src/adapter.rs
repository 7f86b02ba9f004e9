//! An adapter on a device.

use std::sync::Arc;

use upright_model::adapter::{Adapter, AdapterLayout};

use crate::vector::Vector;

/// An adapter on a decoder's device.
#[derive(Clone, Debug)]
pub struct DeviceAdapter {
    /// The adapted linears and the positions of their parameters.
    pub layout: Arc<AdapterLayout>,
    /// The parameters.
    pub parameters: Vector,
}

impl DeviceAdapter {
    /// Copies the adapter to host memory.
    pub fn to_host(&self) -> Adapter {
        Adapter {
            layout: Arc::clone(&self.layout),
            parameters: self.parameters.read().into_owned(),
        }
    }
}
