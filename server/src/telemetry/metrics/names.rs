//! The fixed metrics and the names that Vault gives them.

/// An enum of metrics, each with its name.
macro_rules! metrics {
    ($(#[$about:meta])* $set:ident { $($variant:ident = $name:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $set {
            $(#[doc = concat!("`", $name, "`")] $variant,)*
        }

        impl $set {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [$set] = &[$($set::$variant,)*];

            /// The name, without the prefix that all names have.
            pub fn name(self) -> &'static str {
                const NAMES: &[&str] = &[$($name,)*];
                NAMES[self as usize]
            }
        }
    };
}

metrics! {
    /// Durations: count, sum and quantiles of milliseconds.
    Sample {
        HandleRequest = "core.handle_request",
        HandleLoginRequest = "core.handle_login_request",
        CheckToken = "core.check_token",
        FetchAclAndToken = "core.fetch_acl_and_token",
        PostUnseal = "core.post_unseal",
        PreSeal = "core.pre_seal",
        Seal = "core.seal",
        StepDown = "core.step_down",
        Unseal = "core.unseal",
        AuditLogRequest = "audit.log_request",
        AuditLogResponse = "audit.log_response",
        BarrierGet = "barrier.get",
        BarrierPut = "barrier.put",
        BarrierList = "barrier.list",
        BarrierDelete = "barrier.delete",
        PolicyGet = "policy.get_policy",
        PolicySet = "policy.set_policy",
        PolicyDelete = "policy.delete_policy",
        TokenCreate = "token.create",
        TokenLookup = "token.lookup",
        TokenRevoke = "token.revoke",
        TokenRevokeTree = "token.revoke-tree",
        ExpireRegister = "expire.register",
        ExpireRegisterAuth = "expire.register-auth",
        ExpireRenew = "expire.renew",
        ExpireRenewToken = "expire.renew-token",
        ExpireRevoke = "expire.revoke",
        ExpireRevokePrefix = "expire.revoke-prefix",
        RaftCommitTime = "raft.commitTime",
        RaftDispatchLog = "raft.leader.dispatchLog",
        RaftLastContact = "raft.leader.lastContact",
        RaftFsmApply = "raft.fsm.apply",
        RaftSnapshotCreate = "raft.snapshot.create",
        RaftSnapshotPersist = "raft.snapshot.persist",
        RaftInstallSnapshot = "raft.rpc.installSnapshot",
        RaftAppendEntries = "raft.rpc.appendEntries",
        ForwardClient = "ha.rpc.client.forward",
        SealEncrypt = "seal.encrypt.time",
        SealDecrypt = "seal.decrypt.time",
    }
}

metrics! {
    /// What only grows.
    Counter {
        AuditLogRequestFailure = "audit.log_request_failure",
        AuditLogResponseFailure = "audit.log_response_failure",
        RaftApply = "raft.apply",
        RaftStateLeader = "raft.state.leader",
        RaftStateFollower = "raft.state.follower",
        RaftStateCandidate = "raft.state.candidate",
        RaftHeartbeatTimeout = "raft.transition.heartbeat_timeout",
        LeadershipLost = "core.leadership_lost",
        LeadershipSetupFailed = "core.leadership_setup_failed",
        TokenCreateRoot = "token.create_root",
        LeaseExpiration = "expire.lease_expiration",
        LeaseExpirationError = "expire.lease_expiration.error",
        IdentityEntityCreation = "identity.entity.creation",
        BarrierAutoRotation = "barrier.auto_rotation",
        ForwardClientErrors = "ha.rpc.client.forward.errors",
        SeriesDropped = "telemetry.series_dropped",
    }
}

metrics! {
    /// What stands at some number.
    Gauge {
        CoreUnsealed = "core.unsealed",
        CoreActive = "core.active",
        CorePerformanceStandby = "core.performance_standby",
        ExpireNumLeases = "expire.num_leases",
        ExpireNumIrrevocableLeases = "expire.num_irrevocable_leases",
        ExpireTotalJobs = "expire.job_manager.total_jobs",
        IdentityNumEntities = "identity.num_entities",
        BarrierEstimatedEncryptions = "barrier.estimated_encryptions",
        RaftPeers = "raft.peers",
        RaftAppliedIndex = "raft_storage.stats.applied_index",
        RaftCommitIndex = "raft_storage.stats.commit_index",
        RaftFsmPending = "raft_storage.stats.fsm_pending",
        AutopilotHealthy = "autopilot.healthy",
        AutopilotFailureTolerance = "autopilot.failure_tolerance",
    }
}

impl Gauge {
    /// Whether it tells of the cluster, and so is labelled with its name.
    pub(super) fn is_of_cluster(self) -> bool {
        matches!(self, Gauge::CoreUnsealed | Gauge::CoreActive | Gauge::CorePerformanceStandby)
    }
}

/// The bucket of `creation_ttl` labels that a lifetime falls into: the smallest that holds it. Zero is for ever.
pub(super) fn ttl_bucket(seconds: u64) -> &'static str {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    const BUCKETS: [(u64, &str); 9] = [
        (MINUTE, "1m"),
        (10 * MINUTE, "10m"),
        (20 * MINUTE, "20m"),
        (HOUR, "1h"),
        (2 * HOUR, "2h"),
        (DAY, "1d"),
        (2 * DAY, "2d"),
        (7 * DAY, "7d"),
        (30 * DAY, "30d"),
    ];
    let found = BUCKETS.iter().find(|(most, _)| seconds > 0 && seconds <= *most);
    found.map_or("+Inf", |(_, label)| label)
}
