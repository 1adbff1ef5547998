//! The codec of peer messages: what is sent arrives, and bytes of any kind are safe.

use bytes::Bytes;
use proptest::prelude::*;
use raft::eraftpb::{Entry, EntryType, Message, MessageType, Snapshot};
use ringfence_raft::WireError;
use ringfence_raft::wire::{decode, encode};

fn message() -> impl Strategy<Value = Message> {
    let numbers = (1..1u64 << 55, 1..1u64 << 50, 0..1u64 << 50, 0..1u64 << 50, any::<bool>());
    let bodies = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..5);
    (0..12usize, numbers, bodies, any::<[u8; 16]>()).prop_map(
        |(kind, (term, index, commit, hint, flag), bodies, ctx)| {
            use MessageType::*;
            let kinds = [
                MsgAppend,
                MsgAppendResponse,
                MsgRequestVote,
                MsgRequestVoteResponse,
                MsgRequestPreVote,
                MsgRequestPreVoteResponse,
                MsgSnapshot,
                MsgHeartbeat,
                MsgHeartbeatResponse,
                MsgTimeoutNow,
                MsgReadIndex,
                MsgReadIndexResp,
            ];
            let context = Bytes::copy_from_slice(&ctx);
            let mut m = Message { to: 1, from: 1 << 60, term, ..Default::default() };
            m.set_msg_type(kinds[kind]);
            match kinds[kind] {
                MsgAppend => {
                    (m.log_term, m.index, m.commit) = (term / 2 + 1, index, commit);
                    for (i, body) in (index + 1..).zip(bodies) {
                        m.entries.push(Entry { term, index: i, data: body.into(), ..Default::default() });
                    }
                    if flag {
                        let i = index + 1 + m.entries.len() as u64;
                        let mut e =
                            Entry { term, index: i, data: vec![0x12, 2, 0x10, 9].into(), ..Default::default() };
                        e.set_entry_type(EntryType::EntryConfChangeV2);
                        m.entries.push(e);
                    }
                }
                MsgAppendResponse => {
                    (m.log_term, m.index, m.commit, m.reject_hint) = (hint, index, commit, hint);
                    (m.request_snapshot, m.reject) = (hint, flag);
                }
                MsgRequestVote | MsgRequestPreVote => {
                    (m.log_term, m.index, m.commit, m.commit_term) = (hint, index, commit, hint);
                    if flag {
                        m.context = Bytes::from_static(b"CampaignTransfer");
                    }
                }
                MsgRequestVoteResponse | MsgRequestPreVoteResponse => {
                    (m.commit, m.commit_term, m.reject) = (commit, hint, flag);
                }
                MsgSnapshot => {
                    let mut s = Snapshot { data: context, ..Default::default() };
                    (s.mut_metadata().index, s.mut_metadata().term) = (index, term);
                    s.mut_metadata().mut_conf_state().set_voters(vec![1, 5, 9]);
                    s.mut_metadata().mut_conf_state().set_learners(vec![7]);
                    m.set_snapshot(s);
                }
                MsgHeartbeat | MsgHeartbeatResponse => {
                    m.commit = commit;
                    if flag {
                        m.context = context;
                    }
                }
                MsgReadIndex => {
                    m.term = 0;
                    m.entries.push(Entry { data: context, ..Default::default() });
                }
                MsgReadIndexResp => {
                    m.index = index;
                    m.entries.push(Entry { data: context, ..Default::default() });
                }
                _ => {}
            }
            m
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, ..Default::default() })]

    #[test]
    fn what_is_sent_arrives(m in message()) {
        let bytes = encode(&m).expect("a type for the wire");
        prop_assert_eq!(decode(&bytes), Ok(m));
    }

    #[test]
    fn a_changed_byte_never_panics(m in message(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
        let mut bytes = encode(&m).expect("a type for the wire");
        prop_assert!(decode(&bytes[..cut.index(bytes.len())]).is_err(), "a cut message");
        let i = at.index(bytes.len());
        bytes[i] = byte;
        let _ = decode(&bytes); // another kind or a shorter list may well stand there: whole, but not what was sent
        let _ = decode(&bytes[..cut.index(bytes.len())]);
    }

    #[test]
    fn any_bytes_are_safe(mut b in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(&b);
        if b.len() > 2 {
            (b[0], b[1]) = (1, b[1] % 13);
            let _ = decode(&b);
        }
    }
}

/// What would trip an assertion inside raft is refused by name.
#[test]
fn unsound_messages_are_refused() {
    let append = |term, log_term, index, entries: &[(u64, u64)]| {
        let mut m = Message { to: 1, from: 2, term, log_term, index, ..Default::default() };
        m.set_msg_type(MessageType::MsgAppend);
        for &(term, index) in entries {
            m.entries.push(Entry { term, index, ..Default::default() });
        }
        decode(&encode(&m).expect("a type for the wire"))
    };
    assert!(append(5, 4, 10, &[(4, 11), (5, 12)]).is_ok());
    for (why, refused) in [
        ("a gap", append(5, 4, 10, &[(4, 12)])),
        ("terms go back", append(5, 4, 10, &[(5, 11), (4, 12)])),
        ("an entry from the future", append(5, 4, 10, &[(6, 11)])),
        ("no term before", append(5, 0, 10, &[(4, 11)])),
        ("no term", append(0, 0, 0, &[])),
    ] {
        assert_eq!(refused, Err(WireError::Unsound), "{why}");
    }
    for local in [MessageType::MsgHup, MessageType::MsgPropose, MessageType::MsgTransferLeader, MessageType::MsgBeat]
    {
        let mut m = Message { to: 1, from: 2, ..Default::default() };
        m.set_msg_type(local);
        assert_eq!(encode(&m), None, "{local:?} never leaves a member");
    }
}
