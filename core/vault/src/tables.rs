//! The tables of the image that this floor owns, and their keys.
//!
//! A key begins with the table's number. Tables from 0x80 on are scoped to a mount and carry its number next. No key
//! holds a token, accessor, secret-id or alias name: those appear as keyed hashes of 16 bytes.
//!
//! ```text
//! 0x01 seal and keyring      barrier floor, not sealed by the keyring
//! 0x02 issuers               barrier floor
//! 0x03 mounts                [mount u32]                       MountEntry
//! 0x04 policies              [ns u32][kind u8][name]           text
//! 0x05 namespaces            [ns u32]                          Namespace
//! 0x06 audit devices         [ns u32][path]                    Device
//! 0x07 configuration         [ns u32][topic]                   JSON
//! 0x08 entities              [ns u32][entity id]               Entity
//! 0x09 aliases               [mount u32][hash of name]         entity id
//! 0x0a identity indexes      [ns u32][kind u8][hash or id]     id of entity or group
//! 0x0b groups                [ns u32][group id]                Group
//! 0x0c members of a group    [ns u32][group id]0[kind u8][ns u32][member id]
//! 0x0d groups of a member    [ns u32][member id]0[ns u32][group id]   mount whose logins decide, 0 = by hand
//! 0x0e group aliases         [mount u32][hash of name]         group id
//! 0x10 tokens                [hash of id]                      TokenEntry, header: due time, owner
//! 0x11 accessors             [ns u32][hash of accessor]        accessor, hash of token
//! 0x12 token roles           [ns u32][name]                    Role
//! 0x13 tombstones            [kind u8][subject]                index, progress
//! 0x14 batch-token cut-offs  [ns u32][kind u8][subject]        index
//! 0x15 locked users          [mount u32][hash of name]         until when
//! 0x16 nodes                 [raft id u64]                     node's record, in the clear
//! 0x17 quotas                [kind u8][name]                   Rule, or the settings of all
//! 0x18 floor of eras             one record                       be64, in the clear: see `lease::tombstone`
//! 0x19 active clients        [month u32][hash of client][ns u32][mount u32][kind u8]   see `activity`
//! 0x1e staged records        [key of any other table]         its record: a snapshot on its way in
//! 0x1f adoption              one key, never in the image      what is staged becomes the image
//! 0x20 login MFA             [ns u32][kind u8][...]            see `mfa::records`
//! 0x21 identity tokens       [ns u32][kind u8][name]           see `identity::oidc`
//! 0x80 data of mounts        [mount u32][area u8][suffix]      the engine's
//! 0x81 leases                [mount u32][path/…/id]            LeaseEntry, header: due time, owner
//! 0x82 cubbyholes            [mount u32][hash of token][path]  JSON
//! 0x83 jobs of engines       [mount u32][name]                 failures, header: due time
//! 0x84 mounts of namespaces  [ns u32][mount u32]               nothing: an order of the mount table
//! ```

use ringfence_base::{MountId, NsId};

/// Mount table.
pub const MOUNT: u8 = 0x03;
/// Policies of every kind.
pub const POLICY: u8 = 0x04;
/// Namespaces.
pub const NAMESPACE: u8 = 0x05;
/// Audit devices.
pub const AUDIT: u8 = 0x06;
/// Everything `sys/config` and its like keep.
pub const CONFIG: u8 = 0x07;
/// Identity entities.
pub const ENTITY: u8 = 0x08;
/// Identity aliases.
pub const ALIAS: u8 = 0x09;
/// Ways to entities and groups other than their own ids.
pub const IDENTITY_INDEX: u8 = 0x0a;
/// Identity groups.
pub const GROUP: u8 = 0x0b;
/// Members by group.
pub const MEMBER: u8 = 0x0c;
/// Groups by member.
pub const MEMBER_OF: u8 = 0x0d;
/// Group aliases.
pub const GROUP_ALIAS: u8 = 0x0e;
/// Methods, enforcements, secrets and pending logins of multi-factor authentication.
pub const MFA: u8 = 0x20;
/// Keys, roles and provider resources of identity tokens.
pub const OIDC: u8 = 0x21;
/// Service tokens.
pub const TOKEN: u8 = 0x10;
/// Accessors of service tokens.
pub const ACCESSOR: u8 = 0x11;
/// Token roles.
pub const TOKEN_ROLE: u8 = 0x12;
/// Mass revocations under way.
pub const TOMBSTONE: u8 = 0x13;
/// Batch-token cut-offs.
pub const CUTOFF: u8 = 0x14;
/// Locked users.
pub const LOCKED_USER: u8 = 0x15;
/// Nodes of the cluster, in the clear: a sealed node reads them too.
pub const NODE: u8 = 0x16;
/// Quotas.
pub const QUOTA: u8 = 0x17;
/// The era below which a restore left no batch token alive; in the clear, so that a restore writes it whatever keys the
/// snapshot is sealed by.
pub const ERA_FLOOR: u8 = 0x18;
/// Clients that were active, by month.
pub const ACTIVITY: u8 = 0x19;
/// Records of a snapshot that is being restored, behind their own keys.
pub const STAGED: u8 = 0x1e;
/// Written by the last batch of a restore: the staged records become the image.
pub const ADOPT: u8 = 0x1f;
/// The mounts of each namespace.
pub const MOUNT_OF: u8 = 0x84;
/// Tables whose keys begin with a namespace's number: what is deleted with the namespace, besides tokens and mounts.
pub const OF_NAMESPACE: &[u8] = &[POLICY, AUDIT, CONFIG, TOKEN_ROLE, CUTOFF];
/// Leases of secrets.
pub const LEASE: u8 = 0x81;
/// Cubbyholes.
pub const CUBBYHOLE: u8 = 0x82;
/// Scheduled jobs of engines.
pub const JOB: u8 = ringfence_logical::cx::JOB;

/// Policy kind byte of ACL policies.
pub const POLICY_ACL: u8 = b'a';
/// Policy kind byte of password policies.
pub const POLICY_PASSWORD: u8 = b'p';

/// A keyed hash that stands for a secret name.
pub type Hash = [u8; 16];

fn key(table: u8, scope: u32, parts: &[&[u8]]) -> Vec<u8> {
    let mut k = Vec::with_capacity(5 + parts.iter().map(|p| p.len()).sum::<usize>());
    k.push(table);
    k.extend_from_slice(&scope.to_be_bytes());
    for p in parts {
        k.extend_from_slice(p);
    }
    k
}

/// Key of a mount.
pub fn mount(id: MountId) -> Vec<u8> {
    key(MOUNT, id.0, &[])
}

/// Key that puts a mount into its namespace.
pub fn mount_of(ns: NsId, id: MountId) -> Vec<u8> {
    key(MOUNT_OF, ns.0, &[&id.0.to_be_bytes()])
}

/// Prefix of the mounts of a namespace.
pub fn mounts_of(ns: NsId) -> Vec<u8> {
    key(MOUNT_OF, ns.0, &[])
}

/// Beginning of the key of a client that was active in a month; without a client, of all of that month.
pub fn activity(month: u32, client: &[u8]) -> Vec<u8> {
    key(ACTIVITY, month, &[client])
}

/// Key of a quota; an empty name gives the prefix of the kind.
pub fn quota(kind: u8, name: &str) -> Vec<u8> {
    [&[QUOTA, kind][..], name.as_bytes()].concat()
}

/// Key of a policy; an empty name gives the prefix of the kind.
pub fn policy(ns: NsId, kind: u8, name: &str) -> Vec<u8> {
    key(POLICY, ns.0, &[&[kind], name.as_bytes()])
}

/// Key of a namespace.
pub fn namespace(ns: NsId) -> Vec<u8> {
    key(NAMESPACE, ns.0, &[])
}

/// Key of an audit device.
pub fn audit(ns: NsId, path: &str) -> Vec<u8> {
    key(AUDIT, ns.0, &[path.as_bytes()])
}

/// Key of a configuration topic.
pub fn config(ns: NsId, topic: &str) -> Vec<u8> {
    key(CONFIG, ns.0, &[topic.as_bytes()])
}

/// Key of an entity.
pub fn entity(ns: NsId, id: &str) -> Vec<u8> {
    key(ENTITY, ns.0, &[id.as_bytes()])
}

/// Key of an alias.
pub fn alias(mount: MountId, name: &Hash) -> Vec<u8> {
    key(ALIAS, mount.0, &[name])
}

/// Tables of identity and MFA whose keys begin with the namespace: what goes with it.
pub const IDENTITY_BY_NAMESPACE: [u8; 7] = [ENTITY, IDENTITY_INDEX, GROUP, MEMBER, MEMBER_OF, MFA, OIDC];

/// What an identity index leads by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexKind {
    /// Hash of an entity's name.
    EntityName = b'n' as isize,
    /// Id of an entity alias.
    EntityAlias = b'a' as isize,
    /// Id of an entity that was merged into another.
    Merged = b'm' as isize,
    /// Hash of a group's name.
    GroupName = b'N' as isize,
    /// Id of a group alias.
    GroupAlias = b'A' as isize,
}

/// Key of an identity index; an empty subject gives the prefix of the kind.
pub fn identity_index(ns: NsId, kind: IndexKind, subject: &[u8]) -> Vec<u8> {
    key(IDENTITY_INDEX, ns.0, &[&[kind as u8], subject])
}

/// Key of a group; an empty id gives the prefix of the namespace.
pub fn group(ns: NsId, id: &str) -> Vec<u8> {
    key(GROUP, ns.0, &[id.as_bytes()])
}

/// Prefix of the members of one kind (`e` entities, `g` groups) of a group.
pub fn members(ns: NsId, group: &str, kind: u8) -> Vec<u8> {
    key(MEMBER, ns.0, &[group.as_bytes(), &[0, kind]])
}

/// Prefix of the groups that a member is in directly.
pub fn groups_of(ns: NsId, member: &str) -> Vec<u8> {
    key(MEMBER_OF, ns.0, &[member.as_bytes(), &[0]])
}

/// Key of a group alias.
pub fn group_alias(mount: MountId, name: &Hash) -> Vec<u8> {
    key(GROUP_ALIAS, mount.0, &[name])
}

/// Key of a record of MFA; empty parts give a prefix.
pub fn mfa(ns: NsId, kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    key(MFA, ns.0, &[&[&[kind][..]], parts].concat())
}

/// Key of a record of identity tokens; an empty name gives the prefix of the kind.
pub fn oidc(ns: NsId, kind: u8, name: &str) -> Vec<u8> {
    key(OIDC, ns.0, &[&[kind], name.as_bytes()])
}

/// Key of a service token.
pub fn token(id: &Hash) -> Vec<u8> {
    let mut k = Vec::with_capacity(17);
    k.push(TOKEN);
    k.extend_from_slice(id);
    k
}

/// Key of an accessor.
pub fn accessor(ns: NsId, id: &Hash) -> Vec<u8> {
    key(ACCESSOR, ns.0, &[id])
}

/// Key of a token role.
pub fn token_role(ns: NsId, name: &str) -> Vec<u8> {
    key(TOKEN_ROLE, ns.0, &[name.as_bytes()])
}

/// Key of a tombstone.
pub fn tombstone(kind: u8, subject: &[u8]) -> Vec<u8> {
    let mut k = vec![TOMBSTONE, kind];
    k.extend_from_slice(subject);
    k
}

/// Key of a batch-token cut-off.
pub fn cutoff(ns: NsId, kind: u8, subject: &[u8]) -> Vec<u8> {
    key(CUTOFF, ns.0, &[&[kind], subject])
}

/// Key of a locked user.
pub fn locked_user(mount: MountId, name: &Hash) -> Vec<u8> {
    key(LOCKED_USER, mount.0, &[name])
}

/// Key of a lease: the path of the request within the mount, a slash, and the lease's random part.
pub fn lease(mount: MountId, path: &str) -> Vec<u8> {
    key(LEASE, mount.0, &[path.as_bytes()])
}

/// Key of a cubbyhole entry.
pub fn cubbyhole(mount: MountId, token: &Hash, path: &str) -> Vec<u8> {
    key(CUBBYHOLE, mount.0, &[token, path.as_bytes()])
}
