//! The weights of a network at some time.

use crate::checkpoint::encoding::{ByteReader, DecodeError, decode_values, encode_values};
use crate::model::network::Network;
use crate::numerics::real::Real;

/// Parameters and running statistics of a network at some time.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot<R> {
    parameters: Vec<R>,
    running: Vec<R>,
}

impl<R: Real> Snapshot<R> {
    pub(crate) fn of(network: &Network<R>) -> Self {
        Self { parameters: network.parameters.values.to_vec(), running: network.running.values.to_vec() }
    }

    pub(crate) fn take(&mut self, network: &Network<R>) {
        self.parameters.copy_from_slice(&network.parameters.values);
        self.running.copy_from_slice(&network.running.values);
    }

    pub(crate) fn restore(&self, network: &mut Network<R>) {
        network.parameters.values.copy_from_slice(&self.parameters);
        network.running.values.copy_from_slice(&self.running);
    }

    pub(crate) fn save(&self, out: &mut Vec<u8>) {
        let Self { parameters, running } = self;
        encode_values(parameters, out);
        encode_values(running, out);
    }

    /// Reads a snapshot in the place of this one, which must be of the same network.
    pub(crate) fn load(&mut self, input: &mut ByteReader<'_>) -> Result<(), DecodeError> {
        let Self { parameters, running } = self;
        decode_values(parameters, input)?;
        decode_values(running, input)
    }
}
