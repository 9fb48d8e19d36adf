//! Machines for boot tests, run in containers of the sandbox.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::io::AsyncRead;

use crate::boot::{BootError, Guest, GuestHost, Order, Wire};
use crate::sandbox::docker::{DockerSandbox, GuestContainer, GuestOrder};
use crate::sandbox::{ContainerFile, SandboxError};

/// Starts machines in containers.
pub(super) struct ContainerHost {
    pub(super) sandbox: Arc<DockerSandbox>,
}

struct ContainerGuest(GuestContainer);

fn host_error(error: SandboxError) -> BootError {
    BootError::Host(error.to_string())
}

#[async_trait]
impl GuestHost for ContainerHost {
    async fn start(&self, order: Order) -> Result<Box<dyn Guest>, BootError> {
        let order = GuestOrder {
            purpose: order.purpose,
            prepare: order.prepare,
            arguments: order.arguments,
            user: (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw()),
            kvm: order.kvm,
            files: order.files.into_iter().map(|(path, bytes)| ContainerFile::data(path, bytes)).collect(),
        };
        let guest = self.sandbox.start_guest(order).await.map_err(host_error)?;
        Ok(Box::new(ContainerGuest(guest)))
    }
}

#[async_trait]
impl Guest for ContainerGuest {
    async fn connect(&self, path: &str) -> Result<Wire, BootError> {
        let channel = self.0.connect(path).await.map_err(host_error)?;
        Ok(Wire { reader: channel.reader, writer: channel.writer })
    }

    async fn follow(&self, path: &str) -> Result<Box<dyn AsyncRead + Send + Unpin>, BootError> {
        self.0.follow(path).await.map_err(host_error)
    }

    async fn read(&self, path: &str) -> Result<Vec<u8>, BootError> {
        self.0.read(path).await.map_err(host_error)
    }

    async fn ended(&self) -> Result<(i64, String), BootError> {
        self.0.wait().await.map_err(host_error)
    }

    async fn remove(self: Box<Self>) -> Result<(), BootError> {
        self.0.remove().await.map_err(host_error)
    }
}
