//! `wasmcloud:messaging/consumer` as guests see it. What it asks is done in a task of its own: Cedar is never asked from the stack
//! of a fiber. A guest that is gone takes its task with it.

use std::sync::Arc;

use wasmtime_wasi::runtime::spawn;

use super::sending;
use crate::runtime::context::Ctx;
use crate::runtime::wit::messaging::wasmcloud::messaging::types::BrokerMessage;
use crate::runtime::wit::messaging::wasmcloud::messaging::{consumer, types};

impl types::Host for Ctx {}

impl consumer::Host for Ctx {
    async fn request(&mut self, subject: String, body: Vec<u8>, timeout_ms: u32) -> Result<BrokerMessage, String> {
        let who = Arc::clone(self.who());
        let asked = spawn(async move { sending::request(&who, &subject, body, timeout_ms).await }).await;
        let (subject, body) = asked.map_err(|error| error.to_string())?;
        Ok(BrokerMessage { subject, body, reply_to: None })
    }

    async fn publish(&mut self, message: BrokerMessage) -> Result<(), String> {
        let who = Arc::clone(self.who());
        let delivery = self.delivery().cloned();
        let sent = spawn(async move {
            let BrokerMessage { subject, body, reply_to } = message;
            sending::publish(&who, delivery.as_deref(), &subject, reply_to.as_deref(), body).await
        });
        sent.await.map_err(|error| error.to_string())
    }
}
