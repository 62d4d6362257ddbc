//! What one request's instance can reach in the host: the data of its store, made afresh for each request.

use std::fmt;
use std::sync::Arc;

use wasmtime_wasi::{ResourceTable, WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::budget::Budget;
use super::component::Loaded;
use super::egress::Egress;
use super::messaging::delivery::Delivery;
use super::serving::Caller;
use super::stdio::GuestLog;

/// The data of a store.
pub struct Ctx {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    table: ResourceTable,
    egress: Egress,
    budget: Budget,
    caller: Option<Caller>,
    delivery: Option<Arc<Delivery>>,
}

impl Ctx {
    /// A context without environment, arguments, files, sockets or standard input.
    pub fn new(who: &Arc<Loaded>, caller: Option<Caller>) -> Self {
        let limits = &who.shared().limits;
        let (out, err) = GuestLog::pair(who);
        let mut wasi = WasiCtx::builder();
        wasi.stdout(out).stderr(err).allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false);
        wasi.max_random_size(RANDOM_BYTES);
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(usize::try_from(limits.header_bytes).unwrap_or(usize::MAX).saturating_mul(4));
        let mut table = ResourceTable::new();
        table.set_max_capacity(usize::try_from(limits.handles).unwrap_or(usize::MAX));
        Self {
            wasi: wasi.build(),
            http,
            table,
            egress: Egress::new(Arc::clone(who)),
            budget: Budget::new(limits),
            caller,
            delivery: None,
        }
    }

    /// The same, to handle a message.
    pub fn for_message(who: &Arc<Loaded>, delivery: Arc<Delivery>) -> Self {
        Self { delivery: Some(delivery), ..Self::new(who, None) }
    }

    /// The message that is handled, where one is.
    pub fn delivery(&self) -> Option<&Arc<Delivery>> {
        self.delivery.as_ref()
    }

    /// The component that runs.
    pub fn who(&self) -> &Arc<Loaded> {
        self.egress.who()
    }

    /// The caller, where mTLS proved one.
    pub fn caller(&self) -> Option<&Caller> {
        self.caller.as_ref()
    }

    /// The limits of linear memory and tables.
    pub fn budget(&mut self) -> &mut dyn wasmtime::ResourceLimiter {
        &mut self.budget
    }
}

impl WasiView for Ctx {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Ctx {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.egress }
    }
}

impl fmt::Debug for Ctx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ctx").field("who", self.who()).field("caller", &self.caller).finish_non_exhaustive()
    }
}

/// Bytes of one call for random bytes.
const RANDOM_BYTES: u64 = 1 << 20;
