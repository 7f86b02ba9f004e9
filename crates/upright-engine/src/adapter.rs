//! An adapter on a device.

use std::{ops::Deref, sync::Arc};

use upright_base::Result;
use upright_model::adapter::{Adapter, AdapterLayout};

use crate::vector::Vector;

/// An adapter on a decoder's device.
#[derive(Debug)]
pub struct DeviceAdapter {
    /// The adapted linears and the positions of their parameters.
    pub layout: Arc<AdapterLayout>,
    /// The parameters.
    pub parameters: Vector,
}

impl DeviceAdapter {
    /// Copies the adapter to host memory.
    ///
    /// # Errors
    /// The device failed.
    pub fn to_host(&self) -> Result<Adapter> {
        Ok(Adapter {
            layout: Arc::clone(&self.layout),
            parameters: self.parameters.read()?.into_owned(),
        })
    }

    /// Copies the adapter on its device.
    ///
    /// # Errors
    /// The device failed, or has too little memory.
    pub fn copy(&self) -> Result<Self> {
        Ok(Self {
            layout: Arc::clone(&self.layout),
            parameters: self.parameters.copy()?,
        })
    }
}

/// An adapter that is borrowed, or freed with its holder.
#[derive(Debug)]
pub(crate) enum Held<'a> {
    Borrowed(&'a DeviceAdapter),
    Owned(DeviceAdapter),
}

impl Deref for Held<'_> {
    type Target = DeviceAdapter;

    fn deref(&self) -> &DeviceAdapter {
        match self {
            Self::Borrowed(adapter) => adapter,
            Self::Owned(adapter) => adapter,
        }
    }
}
