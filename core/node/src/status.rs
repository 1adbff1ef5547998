//! What anybody may ask of the node without a token: seal status, health, leader; and the member lists that handlers
//! ask the owner for.

use crate::members::{self, MemberRecord};
use crate::owner::Owner;
use crate::seal::json_reply;
use ringfence_barrier::SealConfig;
use ringfence_base::{Code, Wall};
use ringfence_logical::{Args, Error, Operation};
use ringfence_vault::call::{Body, Reply};
use serde_json::{Value, json};

impl Owner {
    /// `sys/seal-status`.
    pub(crate) fn seal_status(&self) -> Value {
        let settings = &self.vault.settings;
        let config = match self.join_seal_config() {
            Some(c) => Some(c.clone()),
            None if self.has_member() => SealConfig::load(&self.version).ok().flatten(),
            None => None,
        };
        let sealed = self.is_sealed();
        let mut v = json!({
            "type": config.as_ref().map_or("shamir", |c| c.kind.name()),
            "initialized": config.is_some(),
            "sealed": sealed,
            "t": config.as_ref().map_or(0, |c| c.threshold),
            "n": config.as_ref().map_or(0, |c| c.shares),
            "progress": if sealed { self.seal.unseal.progress() } else { 0 },
            "nonce": if sealed { self.seal.unseal.nonce() } else { "" },
            "version": settings.api_version,
            "ringfence_version": settings.own_version,
            "build_date": settings.build_date,
            "migration": false,
            "recovery_seal": false,
            "storage_type": settings.storage_type,
            "removed_from_cluster": self.removed,
        });
        if !sealed {
            v["cluster_name"] = self.facts.cluster_name.clone().into();
            v["cluster_id"] = self.facts.cluster_id.clone().into();
        }
        v
    }

    pub(crate) fn health(&self, args: &Args, op: Operation) -> Reply {
        let number = |name: &str, preset: u16| match args.opt_int(name) {
            None => Ok(preset),
            Some(n) => u16::try_from(n).ok().filter(|n| (100..1000).contains(n)).ok_or(()),
        };
        let flag = |name: &str| match args.json(name) {
            None => Ok(false),
            Some(Value::Bool(b)) => Ok(*b),
            Some(Value::String(s)) => ringfence_logical::args::parse_bool(s).ok_or(()),
            Some(_) => Err(()),
        };
        let chosen = (|| -> Result<u16, ()> {
            let codes = (number("activecode", 200)?, number("standbycode", 429)?, number("sealedcode", 503)?);
            let (uninit, removed) = (number("uninitcode", 501)?, number("removedcode", 530)?);
            let standby_ok = flag("standbyok")?;
            let (performance, performance_ok) = (number("performancestandbycode", 473)?, flag("perfstandbyok")?);
            Ok(if !self.facts_initialized() {
                uninit
            } else if self.removed {
                removed
            } else if self.is_sealed() {
                codes.2
            } else if self.facts.active {
                codes.0
            } else if self.is_performance_standby() {
                if performance_ok { codes.0 } else { performance }
            } else if standby_ok {
                codes.0
            } else {
                codes.1
            })
        })();
        let Ok(code) = chosen else { return Reply::error(&Error::bare(Code::Invalid)) };
        let settings = &self.vault.settings;
        let sealed = self.is_sealed();
        let mut v = json!({
            "initialized": self.facts_initialized(),
            "sealed": sealed,
            "standby": if sealed { !self.is_active() } else { !self.facts.active },
            "performance_standby": !sealed && self.is_performance_standby(),
            "replication_performance_mode": if sealed { "unknown" } else { "disabled" },
            "replication_dr_mode": if sealed { "unknown" } else { "disabled" },
            "server_time_utc": self.now.wall.seconds(),
            "version": settings.api_version,
            "ringfence_version": settings.own_version,
            "enterprise": false,
            "echo_duration_ms": 0,
            "clock_skew_ms": 0,
            "replication_primary_canary_age_ms": 0,
            "removed_from_cluster": self.removed,
        });
        if !sealed {
            v["cluster_name"] = self.facts.cluster_name.clone().into();
            v["cluster_id"] = self.facts.cluster_id.clone().into();
        }
        let mut reply = json_reply(&v);
        if op == Operation::Header {
            reply.body = Body::Empty;
        }
        reply.code = if code == 200 { Code::Ok } else { Code::Custom(code) };
        reply
    }

    pub(crate) fn leader(&self) -> Value {
        let active = self.is_active() && self.keys.is_some();
        let other = self.known_leader().filter(|_| !active && !self.is_sealed()).unwrap_or_default();
        let (api_addr, cluster_addr) = match active {
            true => (self.config.api_addr.clone(), self.config.cluster_addr.clone()),
            false => (other.api_addr, other.cluster_addr),
        };
        let status = self.raft_status();
        let since = self.seal.active_since.filter(|_| active);
        json!({
            "ha_enabled": true,
            "is_self": active,
            "active_time": since.map_or("0001-01-01T00:00:00Z".to_owned(), Wall::rfc3339),
            "leader_address": api_addr,
            "leader_cluster_address": cluster_addr,
            "performance_standby": self.is_performance_standby(),
            "performance_standby_last_remote_wal": if self.is_performance_standby() { self.shown_index().0 } else { 0 },
            "raft_committed_index": status.as_ref().map_or(0, |s| s.committed.0),
            "raft_applied_index": status.as_ref().map_or(0, |s| s.applied.0),
        })
    }

    pub(crate) fn ha_status(&self) -> Value {
        let version = &self.vault.settings.api_version;
        let row = |record: &MemberRecord, active: bool, last_echo: Value| {
            json!({
                "hostname": record.name,
                "api_address": record.api_addr,
                "cluster_address": record.cluster_addr,
                "active_node": active,
                "last_echo": last_echo,
                "echo_duration_ms": 0,
                "clock_skew_ms": 0,
                "version": version,
                "upgrade_version": version,
                "redundancy_zone": "",
            })
        };
        let mut nodes = vec![row(&self.own_record(true), self.is_active(), Value::Null)];
        for (id, record) in members::all(&self.version).iter().filter(|(id, _)| **id != self.raft_id) {
            // a node that was never heard is not shown, as with Vault
            if let Some((at, _)) = self.peers.last(*id) {
                let ago = self.now.mono.since(at);
                let heard = Wall(self.now.wall.0.saturating_sub(ago));
                nodes.push(row(
                    record,
                    self.known_leader().is_some_and(|l| l.raft_id == *id),
                    heard.rfc3339().into(),
                ));
            }
        }
        json!({ "nodes": nodes })
    }

    pub(crate) fn raft_configuration(&self) -> Value {
        let row = |record: &MemberRecord, leader: bool, voter: bool| {
            json!({
                "address": strip_scheme(&record.cluster_addr),
                "leader": leader,
                "node_id": record.name,
                "protocol_version": "3",
                "voter": voter,
            })
        };
        let records = members::all(&self.version);
        let leader = self.raft_status().map_or(0, |s| s.role.leader_id);
        let mut servers: Vec<Value> = records
            .iter()
            .map(|(id, record)| row(record, *id == leader, self.conf_state().voters.contains(id)))
            .collect();
        if servers.is_empty() {
            // a node that nobody has joined has no records
            servers.push(row(&self.own_record(true), self.is_active(), true));
        }
        json!({"config": {"index": 0, "servers": servers}})
    }
}

pub(crate) fn strip_scheme(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, rest)| rest)
}
