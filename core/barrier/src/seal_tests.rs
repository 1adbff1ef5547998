//! The life of a seal: init, unseal, rekey, root generation and rotation over a real image.

use crate::rotate::{self, RotateConfig, Usage};
use crate::seal::{KeyRecords, check_shares};
use crate::*;
use proptest::prelude::*;
use ringfence_base::entropy::SeededEntropy;
use ringfence_base::{Index, Wall};
use ringfence_crypto::Provider;
use ringfence_store::{Image, Version};

const P: Provider = Provider::AwsLc;

struct Cluster {
    image: Image,
    rng: SeededEntropy,
    /// What the active node holds in memory.
    keys: Unsealed,
    sealer: Sealer,
    shares: Vec<Vec<u8>>,
    next: u64,
}

impl Cluster {
    fn new(shares: i64, threshold: i64) -> Cluster {
        let mut rng = SeededEntropy(77);
        let mut image = Image::new();
        let view = image.publish();
        let params = init::InitParams {
            secret_shares: shares,
            secret_threshold: threshold,
            node: "n1".to_owned(),
            ..init::InitParams::default()
        };
        let mut made = init::run(&params, &view, P, Wall(1), &mut rng).unwrap();
        let sealer = made.issuer.sealer(made.unsealed.keyring());
        let shares = made.shares.raw().map(<[u8]>::to_vec).collect();
        let keys = made.unsealed.clone();
        image.advance(Index(1), Wall(1));
        let mut cluster = Cluster { image, rng, keys, sealer, shares, next: 2 };
        cluster.commit(made.records);
        cluster.put("secret", b"from before");
        cluster
    }

    fn view(&mut self) -> Version {
        self.image.publish()
    }

    fn commit(&mut self, records: KeyRecords) {
        let view = self.view();
        let keyring = self.keys.keyring().clone();
        let mut txn = Txn::new(&view, Some(&keyring));
        records.write(&mut txn);
        let done = txn.finish(&mut self.sealer, Wall(self.next)).unwrap();
        self.image.apply(Index(self.next), &done.batch.unwrap());
        self.next += 1;
    }

    /// What every unsealed node does when the core table has changed.
    fn follow(&mut self) {
        let view = self.view();
        self.keys = self.keys.refresh(&view).unwrap();
    }

    fn put(&mut self, name: &str, value: &[u8]) {
        let view = self.view();
        let keyring = self.keys.keyring().clone();
        let mut txn = Txn::new(&view, Some(&keyring));
        txn.put(name.as_bytes().to_vec(), b"", value);
        let done = txn.finish(&mut self.sealer, Wall(self.next)).unwrap();
        self.image.apply(Index(self.next), &done.batch.unwrap());
        self.next += 1;
    }

    fn read(&mut self, keys: &Unsealed, name: &str) -> Option<Vec<u8>> {
        let view = self.view();
        Txn::new(&view, Some(keys.keyring())).get(name.as_bytes()).ok().flatten().map(|p| p.bytes)
    }

    /// Gives shares to a sealed node one after the other.
    fn unseal(&mut self, shares: &[Vec<u8>]) -> Result<Option<Box<Unsealed>>, SealError> {
        let view = self.view();
        let mut attempt = Unseal::new();
        for share in shares {
            if let UnsealStep::Opened(keys) = attempt.submit(share, &view, P, &mut self.rng)? {
                return Ok(Some(keys));
            }
        }
        Ok(None)
    }
}

#[test]
fn init_then_unseal_with_any_threshold_of_shares() {
    let mut c = Cluster::new(5, 3);
    assert!(c.shares.iter().all(|s| s.len() == 33));
    for pick in [[0, 1, 2], [4, 2, 0], [3, 4, 1]] {
        let shares: Vec<_> = pick.iter().map(|&i| c.shares[i].clone()).collect();
        let keys = c.unseal(&shares).unwrap().expect("three shares open");
        assert_eq!(c.read(&keys, "secret").unwrap(), b"from before");
    }
    let two = c.shares[..2].to_vec();
    assert!(c.unseal(&two).unwrap().is_none());

    let one = Cluster::new(1, 1);
    assert_eq!(one.shares[0].len(), 32, "one share is the key itself");

    let view = c.view();
    let again = init::run(&init::InitParams::default(), &view, P, Wall(1), &mut c.rng).unwrap_err();
    assert_eq!(again.text(), "Vault is already initialized");
}

#[test]
fn unseal_progress_and_refusals() {
    let mut c = Cluster::new(5, 3);
    let view = c.view();
    let rng = &mut SeededEntropy(5);
    let mut attempt = Unseal::new();
    assert_eq!(attempt.nonce(), "");
    attempt.submit(&c.shares[0], &view, P, rng).unwrap();
    let nonce = attempt.nonce().to_owned();
    assert_eq!((attempt.progress(), nonce.len()), (1, 36));
    attempt.submit(&c.shares[0], &view, P, rng).unwrap();
    assert_eq!(attempt.progress(), 1, "the same share again does not advance");
    attempt.submit(&c.shares[1], &view, P, rng).unwrap();
    assert_eq!(attempt.nonce(), nonce, "constant through the attempt");
    attempt.reset();
    assert_eq!((attempt.progress(), attempt.nonce()), (0, ""));

    // a wrong set ends the attempt
    let mut wrong = c.shares[2].clone();
    wrong[0] ^= 1;
    for share in [&c.shares[0], &c.shares[1]] {
        attempt.submit(share, &view, P, rng).unwrap();
    }
    let refused = attempt.submit(&wrong, &view, P, rng).unwrap_err();
    assert_eq!(refused, SealError::WrongKey);
    assert_eq!(attempt.progress(), 0);
    // a share of one's own at a point already taken
    let mut twin = c.shares[0].clone();
    twin[5] ^= 1;
    for share in [&c.shares[0], &twin] {
        attempt.submit(share, &view, P, rng).unwrap();
    }
    let refused = attempt.submit(&c.shares[1], &view, P, rng).unwrap_err();
    assert!(refused.text().ends_with("duplicate part detected"));

    assert_eq!(
        attempt.submit(&[1; 15], &view, P, rng).unwrap_err().text(),
        "invalid key: key is shorter than minimum 16 bytes"
    );
    assert_eq!(
        attempt.submit(&[1; 34], &view, P, rng).unwrap_err().text(),
        "invalid key: key is longer than maximum 33 bytes"
    );
    let empty = Image::new().publish();
    assert_eq!(attempt.submit(&[1; 33], &empty, P, rng).unwrap_err().text(), "Vault is not initialized");

    let mut single = Cluster::new(1, 1);
    let view = single.view();
    let refused = attempt.submit(&[1; 33], &view, P, rng).unwrap_err();
    assert_eq!(refused.text(), "invalid key: failed to setup unseal key: crypto/aes: invalid key size 33");
}

#[test]
fn share_texts() {
    let bytes = vec![0xab; 33];
    assert_eq!(*parse_share(&hex::encode(&bytes)).unwrap(), bytes);
    assert_eq!(*parse_share("q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6ur").unwrap(), bytes);
    // 44 characters that are both: as hexadecimal 22 bytes, in range, so hexadecimal wins as documented
    assert_eq!(parse_share(&"ab".repeat(22)).unwrap().len(), 22);
    assert_eq!(parse_share("").unwrap_err().text(), "'key' must be specified in request body as JSON");
    assert_eq!(parse_share("not a key!").unwrap_err().text(), "'key' must be a valid hex or base64 string");
}

#[test]
fn share_rules_have_vaults_words() {
    for (shares, threshold, pgp, text) in [
        (0, 1, 0, "shares must be at least one"),
        (5, 0, 0, "threshold must be at least one"),
        (5, 1, 0, "invalid threshold while shares is greater than one"),
        (3, 5, 0, "threshold cannot be larger than shares"),
        (256, 5, 0, "shares must be less than 256"),
        (5, 3, 4, "count mismatch between number of provided PGP keys and number of shares"),
    ] {
        assert_eq!(check_shares(shares, threshold, pgp).unwrap_err().text(), text);
    }
    assert_eq!(check_shares(255, 255, 0), Ok((255, 255)));
    let mut image = Image::new();
    let none = init::run(&init::InitParams::default(), &image.publish(), P, Wall(1), &mut SeededEntropy(1));
    assert_eq!(none.unwrap_err().text(), "invalid seal configuration: shares must be at least one");
}

fn rekey_params(shares: i64, threshold: i64, verify: bool) -> RekeyParams {
    RekeyParams {
        secret_shares: shares,
        secret_threshold: threshold,
        require_verification: verify,
        ..RekeyParams::default()
    }
}

/// Gives the present shares to a rekey until it completes.
fn complete(c: &mut Cluster, rekey: &mut Rekey, nonce: &str, shares: &[Vec<u8>]) -> RekeyStep {
    let view = c.view();
    for share in shares {
        match rekey.update(share, nonce, &c.keys, &view, &mut c.rng).unwrap() {
            RekeyStep::Waiting(_) => {}
            done => return done,
        }
    }
    panic!("the threshold was not reached");
}

#[test]
fn rekey_replaces_the_shares_and_standbys_follow() {
    let mut c = Cluster::new(5, 3);
    let standby = c.keys.clone();
    let view = c.view();
    let mut rekey = Rekey::new();
    assert!(!rekey.status(&view).unwrap().started);
    let began = rekey.start(&rekey_params(3, 2, false), &view, &mut c.rng).unwrap();
    assert_eq!((began.t, began.n, began.required, began.progress), (2, 3, 3, 0));
    let refused = rekey.start(&rekey_params(3, 2, false), &view, &mut c.rng).unwrap_err();
    assert_eq!(refused.text(), "rekey already in progress");
    let refused = rekey.update(&c.shares[0], "x", &c.keys, &view, &mut c.rng).unwrap_err();
    assert_eq!(
        refused.text(),
        format!("incorrect nonce supplied; nonce for this rekey operation is \"{}\"", began.nonce)
    );

    let old = c.shares.clone();
    rekey.update(&old[0], &began.nonce, &c.keys, &view, &mut c.rng).unwrap();
    let refused = rekey.update(&old[0], &began.nonce, &c.keys, &view, &mut c.rng).unwrap_err();
    assert_eq!(refused.text(), "given key has already been provided during this generation operation");
    let step = complete(&mut c, &mut rekey, &began.nonce, &old[1..]);
    let RekeyStep::Complete { shares, records: Some(records), verification_nonce: None, .. } = step else {
        panic!("{step:?}")
    };
    assert!(!rekey.status(&view).unwrap().started);
    c.commit(records);

    // the active node and a standby read the new keyring with what they hold
    c.follow();
    let view = c.view();
    let standby = standby.refresh(&view).unwrap();
    assert_eq!(c.read(&standby, "secret").unwrap(), b"from before");
    let new: Vec<Vec<u8>> = shares.raw().map(<[u8]>::to_vec).collect();
    assert_eq!(new.len(), 3);
    assert!(c.unseal(&new[1..]).unwrap().is_some());
    assert_eq!(c.unseal(&old[..2]).unwrap_err(), SealError::WrongKey);
    // and the next rekey is authorised by the new shares
    let refused = rekey.update(&new[0], "", &c.keys, &view, &mut c.rng).unwrap_err();
    assert_eq!(refused.text(), "no barrier rekey in progress");
    let began = rekey.start(&rekey_params(1, 1, false), &view, &mut c.rng).unwrap();
    assert!(matches!(complete(&mut c, &mut rekey, &began.nonce, &new), RekeyStep::Complete { .. }));
}

#[test]
fn verified_rekey_takes_effect_only_when_the_new_shares_come_back() {
    let mut c = Cluster::new(3, 2);
    let old = c.shares.clone();
    let view = c.view();
    let mut rekey = Rekey::new();
    let began = rekey.start(&rekey_params(3, 2, true), &view, &mut c.rng).unwrap();
    let step = complete(&mut c, &mut rekey, &began.nonce, &old);
    let RekeyStep::Complete { shares, records: None, verification_nonce: Some(nonce), .. } = step else {
        panic!("{step:?}")
    };
    let new: Vec<Vec<u8>> = shares.raw().map(<[u8]>::to_vec).collect();
    assert!(c.unseal(&old).unwrap().is_some(), "old shares are still in force");
    let refused = rekey.update(&old[0], &began.nonce, &c.keys, &view, &mut c.rng).unwrap_err();
    assert!(refused.text().ends_with(&format!("nonce for the verification operation is \"{nonce}\"")));

    assert!(matches!(rekey.verify(&new[0], &nonce, &c.keys, &mut c.rng), Ok(RekeyVerifyStep::Waiting(_))));
    let refused = rekey.verify(&old[0], &nonce, &c.keys, &mut c.rng).unwrap_err();
    assert_eq!(refused, SealError::VerificationFailed);
    assert_eq!(rekey.verify_status().progress, 0, "a failed verification starts over");
    let restarted = rekey.restart_verification(&mut c.rng).unwrap();
    assert_ne!(restarted.nonce, nonce);
    assert!(matches!(rekey.verify(&new[0], &nonce, &c.keys, &mut c.rng), Err(SealError::VerificationNonce(_))));
    rekey.verify(&new[2], &restarted.nonce, &c.keys, &mut c.rng).unwrap();
    let Ok(RekeyVerifyStep::Complete { records, .. }) = rekey.verify(&new[1], &restarted.nonce, &c.keys, &mut c.rng)
    else {
        panic!("two of two new shares")
    };
    c.commit(records);
    c.follow();
    assert!(c.unseal(&new).unwrap().is_some());
    assert!(c.unseal(&old).is_err());
}

#[test]
fn rekey_refuses_nonsense_and_wrong_shares() {
    let mut c = Cluster::new(3, 2);
    let view = c.view();
    let mut rekey = Rekey::new();
    let backup = RekeyParams { backup: true, ..rekey_params(3, 2, false) };
    assert_eq!(
        rekey.start(&backup, &view, &mut c.rng).unwrap_err().text(),
        "cannot request a backup of the new keys without providing PGP keys for encryption"
    );
    let pgp = RekeyParams { pgp_keys: vec![String::new()], ..rekey_params(3, 2, false) };
    assert_eq!(rekey.start(&pgp, &view, &mut c.rng).unwrap_err().text(), "incorrect number of PGP keys for rekey");
    assert_eq!(
        rekey.start(&rekey_params(3, 1, false), &view, &mut c.rng).unwrap_err().text(),
        "invalid rekey seal configuration: invalid threshold while shares is greater than one"
    );
    let began = rekey.start(&rekey_params(3, 2, false), &view, &mut c.rng).unwrap();
    let mut wrong = c.shares[1].clone();
    wrong[3] ^= 4;
    rekey.update(&c.shares[0], &began.nonce, &c.keys, &view, &mut c.rng).unwrap();
    let refused = rekey.update(&wrong, &began.nonce, &c.keys, &view, &mut c.rng).unwrap_err();
    assert_eq!(refused, SealError::WrongKey);
    assert_eq!(rekey.status(&view).unwrap().progress, 0);
    rekey.cancel();
    assert!(!rekey.status(&view).unwrap().started);
    assert_eq!(ShareBackup::load(&view).unwrap_err().text(), "no backed-up keys found");
}

#[test]
fn a_root_token_leaves_under_its_password() {
    let mut c = Cluster::new(3, 2);
    let view = c.view();
    let mut root = GenerateRoot::new();
    assert_eq!(root.status(&view).unwrap().otp_length, 28);
    let short = GenerateParams { otp: Some("short".to_owned()), ..GenerateParams::default() };
    assert_eq!(root.start(&short, &view, &mut c.rng).unwrap_err().text(), "OTP string has incorrect length");
    let began = root.start(&GenerateParams::default(), &view, &mut c.rng).unwrap();
    assert_eq!((began.otp.len(), began.required, began.started), (OTP_LENGTH, 2, true));
    assert_eq!(root.status(&view).unwrap().otp, "", "shown once");
    let again = root.start(&GenerateParams::default(), &view, &mut c.rng).unwrap_err();
    assert_eq!(again.text(), "root generation already in progress");

    assert!(matches!(root.update(&c.shares[0], &began.nonce, &c.keys, &view), Ok(GenerateStep::Waiting(_))));
    assert_eq!(root.update(&c.shares[0], &began.nonce, &c.keys, &view).unwrap_err(), SealError::DuplicateShare);
    let mut wrong = c.shares[1].clone();
    wrong[9] ^= 1;
    assert_eq!(root.update(&wrong, &began.nonce, &c.keys, &view).unwrap_err(), SealError::WrongKey);
    root.update(&c.shares[1], &began.nonce, &c.keys, &view).unwrap();
    let Ok(GenerateStep::Mint(request)) = root.update(&c.shares[2], &began.nonce, &c.keys, &view) else {
        panic!("two right shares")
    };
    let token = "hvs.ABCDEFGHIJKLMNOPQRSTUVWX";
    let encoded = request.encode(token, &mut c.rng).unwrap();
    assert!(!encoded.ends_with('='));
    assert_eq!(decode_token(&encoded, &began.otp).unwrap(), token);
    assert_eq!(decode_token("*", &began.otp), Err(SealError::BadEncodedToken));
    assert_eq!(decode_token("AAAA", &began.otp), Err(SealError::TokenLength));
    let after = root.update(&c.shares[0], &began.nonce, &c.keys, &view).unwrap_err();
    assert_eq!(after.text(), "no root generation in progress");
}

/// The vector by which Vault itself tests `sys/decode-token`.
#[test]
fn exclusive_or_is_vaults() {
    let (encoded, otp) = ("Bxg9JQQqOCNKBRICNwMIRzo2J3cWCBRi", "3JhHkONiyiaNYj14nnD9xZQS");
    assert_eq!(decode_token(encoded, otp).unwrap(), "4RUmoevJ3lsLni9sTXcNnRE1");
}

#[test]
fn rotation_adds_a_term_that_everyone_reads() {
    let mut c = Cluster::new(1, 1);
    let before = c.keys.clone();
    for term in 2..=3 {
        let records = rotate::rotate(&c.keys, Wall(term * 100), &mut c.rng);
        c.commit(records);
        c.follow();
        assert_eq!(u64::from(c.keys.keyring().active_term()), term);
        assert_eq!(c.keys.keyring().active_since(), Wall(term * 100));
        c.put(&format!("under {term}"), b"new");
        assert_eq!(u64::from(c.sealer.term()), term);
    }
    let keys = c.keys.clone();
    assert_eq!(c.read(&keys, "secret").unwrap(), b"from before");
    assert_eq!(c.read(&keys, "under 3").unwrap(), b"new");
    assert_eq!(c.read(&before, "under 3"), None, "a node that did not follow cannot read it");
    let shares = c.shares.clone();
    let keys = c.unseal(&shares).unwrap().expect("the shares are the same");
    assert_eq!(c.read(&keys, "under 2").unwrap(), b"new");
    let view = c.view();
    assert_eq!(Usage::load(&view, 3), Usage { term: 3, encryptions: 0 });
}

#[test]
fn rotation_is_due_by_count_or_age() {
    let day = rotate::MIN_INTERVAL_SECONDS;
    let config = RotateConfig { interval_seconds: day, ..RotateConfig::default() };
    assert_eq!(config.check(), Ok(()));
    assert!(!config.is_due(5, Wall(0), Wall::from_seconds(day - 1)));
    assert!(config.is_due(5, Wall(0), Wall::from_seconds(day)));
    assert!(config.is_due(rotate::MAX_OPERATIONS, Wall(0), Wall(0)));
    assert!(!RotateConfig { enabled: false, ..config }.is_due(u64::MAX, Wall(0), Wall::from_seconds(day)));
    assert!(!RotateConfig::default().is_due(0, Wall(0), Wall(u64::MAX)));
    assert!(RotateConfig { interval_seconds: day - 1, ..config }.check().is_err());
    for max_operations in [rotate::MIN_OPERATIONS - 1, rotate::MAX_OPERATIONS + 1] {
        assert!(RotateConfig { max_operations, ..config }.check().is_err());
    }
    assert_eq!(RotateConfig::decode(&config.encode()), Ok(config));
}

#[test]
fn the_unseal_key_seals_outside_the_barrier() {
    let mut c = Cluster::new(3, 2);
    let blob = c.keys.seal_blob(BlobPurpose::SnapshotSums, b"sums", &mut c.rng);
    let shares = c.shares.clone();
    let other_node = c.unseal(&shares).unwrap().unwrap();
    assert_eq!(&other_node.open_blob(BlobPurpose::SnapshotSums, &blob).unwrap()[..], b"sums");
    assert!(other_node.open_blob(BlobPurpose::JoinChallenge, &blob).is_err());
    assert!(Cluster::new(1, 1).keys.open_blob(BlobPurpose::RootKey, &blob).is_err());
}

/// No key of an unsealed cluster stands in its image in clear.
#[test]
fn no_key_stands_in_the_image() {
    let mut c = Cluster::new(1, 1);
    let encoded = c.keys.keyring().encode();
    let view = c.view();
    let share = c.shares[0].clone();
    let secrets = [&share[..], &encoded[1..33], &encoded[46..78], &encoded[78..110], b"from before"];
    for (key, value) in Version::scan_prefix(&view, b"") {
        for secret in secrets {
            assert!(!value.windows(secret.len()).any(|w| w == secret), "{}", key.escape_ascii());
        }
    }
    assert_eq!(encoded.len(), 110);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_core_record_is_safe(bytes: Vec<u8>) {
        let _ = SealConfig::decode(&bytes);
        let _ = RotateConfig::decode(&bytes);
        let _ = Usage::decode(&bytes);
        let _ = parse_share(&String::from_utf8_lossy(&bytes));
        let with_format = [&[1], &bytes[..]].concat();
        if let Ok(config) = SealConfig::decode(&with_format) {
            prop_assert_eq!(config.encode(), with_format);
        }
    }
}
