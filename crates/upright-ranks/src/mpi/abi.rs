//! Binary interfaces of MPI. Its header gives each library its own constants, so that a program
//! fits one of them. Here they are values, chosen when a library is opened.

use std::ffi::c_int;

/// A handle of MPI, such as a communicator: a pointer in Open MPI and in the standard interface, an
/// `int` in MPICH's own, which reads the low half of the register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(super) struct Handle(pub usize);

/// A binary interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Abi {
    /// The standard interface of MPI 5: `libmpi_abi.so.1` of MPICH 5 and Open MPI 6.
    Standard,
    /// Open MPI's own: `libmpi.so.40`.
    OpenMpi,
    /// MPICH's own, which Intel MPI, MVAPICH and Cray MPICH share: `libmpi.so.12`,
    /// or `libmpich.so.12` on Debian.
    Mpich,
}

/// The constants of an interface that this crate needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Constants {
    pub(super) world: Handle,
    pub(super) byte: Handle,
    pub(super) int64: Handle,
    pub(super) sum: Handle,
    pub(super) errors_return: Handle,
    /// Stands for the send buffer of a sum that is made in its receive buffer.
    pub(super) in_place: usize,
    pub(super) serialized: c_int,
}

impl Abi {
    /// The interface of a library. `name` is the name of its file, links resolved; `address` gives
    /// the address of a symbol.
    pub(super) fn of(name: &str, address: &dyn Fn(&str) -> Option<usize>) -> Self {
        // Open MPI 6 has both: its library of the standard interface leans on the other.
        if name.contains("_abi") {
            Self::Standard
        } else if address("ompi_mpi_comm_world").is_some() {
            Self::OpenMpi
        } else {
            Self::Mpich
        }
    }

    /// Its constants. `None`: the library lacks a symbol.
    pub(super) fn constants(self, address: &dyn Fn(&str) -> Option<usize>) -> Option<Constants> {
        let constants = match self {
            Self::Standard => Constants {
                world: Handle(0x101),
                byte: Handle(0x247),
                int64: Handle(0x258),
                sum: Handle(0x21),
                errors_return: Handle(0x143),
                in_place: 1,
                serialized: 2048,
            },
            Self::OpenMpi => Constants {
                world: Handle(address("ompi_mpi_comm_world")?),
                byte: Handle(address("ompi_mpi_byte")?),
                int64: Handle(address("ompi_mpi_int64_t")?),
                sum: Handle(address("ompi_mpi_op_sum")?),
                errors_return: Handle(address("ompi_mpi_errors_return")?),
                in_place: 1,
                serialized: 2,
            },
            Self::Mpich => Constants {
                world: Handle(0x4400_0000),
                byte: Handle(0x4c00_010d),
                int64: Handle(0x4c00_083a),
                sum: Handle(0x5800_0003),
                errors_return: Handle(0x5400_0001),
                in_place: usize::MAX,
                serialized: 2,
            },
        };
        Some(constants)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interface_is_told_by_name_and_symbols() {
        let none = |_: &str| None;
        let open_mpi = |name: &str| name.starts_with("ompi_mpi_").then_some(7);
        assert_eq!(Abi::of("libmpi_abi.so.1.0.0", &none), Abi::Standard);
        assert_eq!(Abi::of("libmpi_abi.so.1", &open_mpi), Abi::Standard);
        assert_eq!(Abi::of("libmpi.so.40.30.4", &open_mpi), Abi::OpenMpi);
        assert_eq!(Abi::of("libmpi.so.12", &none), Abi::Mpich);
        assert!(Abi::OpenMpi.constants(&none).is_none());
        assert_eq!(Abi::OpenMpi.constants(&open_mpi).unwrap().world, Handle(7));
    }
}
