//! cert from outside, with certificates made for each test.

use super::Cert;
use crate::fixture::World;
use der::asn1::{BitString, GeneralizedTime};
use der::oid::ObjectIdentifier;
use der::{DateTime, Decode, Encode};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
    SerialNumber, SigningKey, date_time_ymd,
};
use ringfence_base::Code;
use ringfence_logical::Auth;
use ringfence_logical::Operation::{Delete, Read, Update};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_ocsp::{
    BasicOcspResponse, CertStatus, OcspGeneralizedTime, OcspRequest, OcspResponse, ResponderId, ResponseData,
    RevokedInfo, SingleResponse, Version,
};

const NOW: u64 = 1_700_000_000;
const NOT_TRUSTED: &str = "invalid certificate or no client certificate supplied";
const NOT_MATCHING: &str = "no chain matching all constraints could be found for this login certificate";

/// A certificate with its key.
struct Made {
    params: CertificateParams,
    key: KeyPair,
    der: Vec<u8>,
    pem: String,
}

impl Made {
    fn authority(name: &str) -> Made {
        let key = KeyPair::generate().unwrap();
        let params = authority_params(name);
        let certificate = params.self_signed(&key).unwrap();
        Made { der: certificate.der().to_vec(), pem: certificate.pem(), params, key }
    }

    fn signs(&self, params: CertificateParams, key: KeyPair) -> Made {
        let certificate = params.signed_by(&key, &Issuer::from_params(&self.params, &self.key)).unwrap();
        Made { der: certificate.der().to_vec(), pem: certificate.pem(), params, key }
    }

    fn client(&self, name: &str) -> Made {
        self.signs(client_params(name), KeyPair::generate().unwrap())
    }
}

fn authority_params(name: &str) -> CertificateParams {
    let mut p = CertificateParams::default();
    p.distinguished_name.push(DnType::CommonName, name);
    p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    p.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    p
}

fn client_params(name: &str) -> CertificateParams {
    let mut p = CertificateParams::default();
    p.distinguished_name.push(DnType::CommonName, name);
    p.distinguished_name.push(DnType::OrganizationalUnitName, "ops");
    p.subject_alt_names = vec![
        SanType::DnsName("web.test".try_into().unwrap()),
        SanType::Rfc822Name("web@test".try_into().unwrap()),
        SanType::URI("spiffe://test/web".try_into().unwrap()),
    ];
    p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    p.serial_number = Some(SerialNumber::from(4711u64));
    p.use_authority_key_identifier_extension = true;
    // DER of UTF8String "blue"
    p.custom_extensions.push(CustomExtension::from_oid_content(&[1, 2, 3, 4], b"\x0c\x04blue".to_vec()));
    p
}

fn world() -> World {
    World::new(Cert)
}

fn with(ca: &Made, extra: Value) -> World {
    let mut w = world();
    let mut body = json!({"certificate": ca.pem, "token_policies": "web", "token_ttl": "1h"});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    w.post("certs/web", body);
    w
}

fn login(w: &mut World, shown: &[&Made]) -> Result<Auth, (Code, String)> {
    w.peer_certificates = shown.iter().map(|m| m.der.clone()).collect();
    match w.run(Update, "login", json!({})) {
        Ok(r) => Ok(r.unwrap().auth.unwrap()),
        Err(e) => Err((e.code, e.errors[0].to_string())),
    }
}

fn refusal(w: &mut World, shown: &[&Made]) -> String {
    let (code, text) = login(w, shown).unwrap_err();
    assert_eq!(code, Code::Invalid);
    text
}

#[test]
fn a_client_of_an_authority_logs_in() {
    let ca = Made::authority("root");
    let mut w = with(&ca, json!({"allowed_metadata_extensions": "1.2.3.4"}));
    let client = ca.client("web");
    let auth = login(&mut w, &[&client]).unwrap();
    assert_eq!((auth.display_name.as_str(), auth.alias.as_ref().unwrap().name.as_str()), ("web", "web"));
    assert_eq!((auth.policies.as_slice(), auth.ttl), (&["web".to_owned()][..], 3600));
    for (key, value) in [("cert_name", "web"), ("common_name", "web"), ("serial_number", "4711"), ("1-2-3-4", "blue")]
    {
        assert_eq!(auth.metadata[key], value);
    }
    assert!(auth.metadata["authority_key_id"].contains(':'));
    assert!(auth.alias.unwrap().metadata.is_empty());
    w.post("config", json!({"enable_identity_alias_metadata": true}));
    assert_eq!(login(&mut w, &[&client]).unwrap().alias.unwrap().metadata["cert_name"], "web");
    assert_eq!(w.writes, 0);
}

#[test]
fn strangers_are_refused() {
    let ca = Made::authority("root");
    let mut w = with(&ca, json!({}));
    assert_eq!(refusal(&mut w, &[]), "client certificate must be supplied");
    let other = Made::authority("root");
    assert_eq!(refusal(&mut w, &[&other.client("web")]), NOT_TRUSTED, "the same name, another key");
    let mut late = client_params("web");
    late.not_after = date_time_ymd(2020, 1, 1);
    assert_eq!(refusal(&mut w, &[&ca.signs(late, KeyPair::generate().unwrap())]), NOT_TRUSTED);
    let mut server = client_params("web");
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    assert_eq!(refusal(&mut w, &[&ca.signs(server, KeyPair::generate().unwrap())]), NOT_TRUSTED);
    w.peer_certificates = vec![b"junk".to_vec()];
    assert_eq!(w.refused(Update, "login", json!({})), (Code::Invalid, NOT_TRUSTED.into()));
    // an authority that has ended lets nobody in
    let mut old = authority_params("old");
    old.not_after = date_time_ymd(2020, 1, 1);
    let key = KeyPair::generate().unwrap();
    let certificate = old.self_signed(&key).unwrap();
    let old = Made { der: certificate.der().to_vec(), pem: certificate.pem(), params: old, key };
    let mut w = with(&old, json!({}));
    assert_eq!(refusal(&mut w, &[&old.client("web")]), NOT_TRUSTED);
}

#[test]
fn intermediates_are_shown_or_trusted() {
    let root = Made::authority("root");
    let middle = root.signs(authority_params("middle"), KeyPair::generate().unwrap());
    let client = middle.client("web");
    let mut w = with(&root, json!({}));
    assert_eq!(refusal(&mut w, &[&client]), NOT_TRUSTED);
    assert!(login(&mut w, &[&client, &middle]).is_ok());
    let mut w = with(&middle, json!({}));
    assert!(login(&mut w, &[&client]).is_ok());
    // a client is no authority
    let client = root.client("web");
    let below = client.client("web");
    let mut w = with(&root, json!({}));
    assert_eq!(refusal(&mut w, &[&below, &client]), NOT_TRUSTED);
}

#[test]
fn cve_2025_6037_a_pinned_certificate_is_matched_by_all_that_it_is() {
    let ca = Made::authority("root");
    let key = KeyPair::generate().unwrap();
    let pem = key.serialize_pem();
    let pinned = ca.signs(client_params("web"), key);
    let mut w = with(&pinned, json!({}));
    assert!(login(&mut w, &[&pinned]).is_ok());
    // the same key, serial number and issuer with another name
    let mut other = client_params("admin");
    let twin = ca.signs(other.clone(), KeyPair::from_pem(&pem).unwrap());
    assert_eq!(refusal(&mut w, &[&twin]), NOT_TRUSTED);
    // and signed by itself
    other.serial_number = Some(SerialNumber::from(4711u64));
    let key = KeyPair::from_pem(&pem).unwrap();
    let certificate = other.self_signed(&key).unwrap();
    let own = Made { der: certificate.der().to_vec(), pem: certificate.pem(), params: other, key };
    assert_eq!(refusal(&mut w, &[&own]), NOT_TRUSTED);
    // a pinned certificate vouches for no other
    assert_eq!(refusal(&mut w, &[&pinned.client("x"), &pinned]), NOT_TRUSTED);
}

#[test]
fn constraints() {
    let ca = Made::authority("root");
    let client = ca.client("web");
    for (field, good, bad) in [
        ("allowed_names", "w*", "x*"),
        ("allowed_common_names", "web", "web2"),
        ("allowed_dns_sans", "*.test", "*.other"),
        ("allowed_email_sans", "*@test", "admin@test"),
        ("allowed_uri_sans", "spiffe://test/*", "spiffe://other/*"),
        ("allowed_organizational_units", "dev,ops", "dev"),
        ("required_extensions", "1.2.3.4:bl*,hex:1.2.3.4:0c04*", "1.2.3.4:bl*,1.2.3.5:x"),
        ("required_extensions", "hex:1.2.3.4:0C04626c7565", "1.2.3.4:red"),
    ] {
        let mut w = with(&ca, json!({ field: good }));
        assert!(login(&mut w, &[&client]).is_ok(), "{field}");
        let mut w = with(&ca, json!({ field: bad }));
        assert_eq!(refusal(&mut w, &[&client]), NOT_MATCHING, "{field}");
    }
    let mut w = with(&ca, json!({"allowed_common_names": "nobody"}));
    w.post("certs/second", json!({"certificate": ca.pem, "token_policies": "second"}));
    assert_eq!(login(&mut w, &[&client]).unwrap().policies, ["second"]);
    assert_eq!(w.refused(Update, "login", json!({"name": "WEB"})), (Code::Invalid, NOT_MATCHING.into()));
    assert_eq!(w.refused(Update, "login", json!({"name": "absent"})), (Code::Invalid, NOT_TRUSTED.into()));
    w.remote = "11.0.0.1".parse().ok();
    w.post("certs/second", json!({"token_bound_cidrs": "10.0.0.0/8"}));
    assert_eq!(login(&mut w, &[&client]).unwrap_err(), (Code::Denied, "permission denied".into()));
}

#[test]
fn cve_2026_39388_a_renewal_is_the_clients_of_the_login() {
    let ca = Made::authority("root");
    let mut w = with(&ca, json!({}));
    let (client, other) = (ca.client("web"), ca.client("web"));
    let auth = login(&mut w, &[&client]).unwrap();
    let renew = |w: &mut World, shown: &[&Made], policies: &[&str]| {
        w.peer_certificates = shown.iter().map(|m| m.der.clone()).collect();
        let policies: Vec<String> = policies.iter().map(|p| (*p).to_owned()).collect();
        w.with_engine(|e, cx| e.renew_token(cx, &policies, &auth.internal))
            .map(|r| r.ttl)
            .map_err(|e| e.errors[0].to_string())
    };
    let not_matching = "client identity during renewal not matching client identity used during login";
    assert_eq!(renew(&mut w, &[&client], &["web", "default"]), Ok(3600));
    assert_eq!(renew(&mut w, &[&other], &["web"]).unwrap_err(), not_matching, "a good certificate, but another");
    assert_eq!(renew(&mut w, &[], &["web"]).unwrap_err(), "client certificate must be supplied");
    assert_eq!(renew(&mut w, &[&client], &["other"]).unwrap_err(), "policies have changed, not renewing");
    let mut next = client_params("web");
    next.serial_number = Some(SerialNumber::from(1u64));
    let followed = ca.signs(next, KeyPair::from_pem(&client.key.serialize_pem()).unwrap());
    assert_eq!(renew(&mut w, &[&followed], &["web"]), Ok(3600), "the client's next certificate");
    w.post("crls/x", json!({"crl": crl_of(&ca, &[4711])}));
    assert_eq!(renew(&mut w, &[&client], &["web"]).unwrap_err(), NOT_MATCHING);
    w.post("config", json!({"disable_binding": true}));
    assert_eq!(renew(&mut w, &[], &["web"]), Ok(3600));
    w.delete("certs/web");
    assert!(renew(&mut w, &[&client], &["web"]).is_err());
}

fn crl_of(ca: &Made, serials: &[u64]) -> String {
    let revoked = |n: &u64| RevokedCertParams {
        serial_number: SerialNumber::from(*n),
        revocation_time: date_time_ymd(2023, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2023, 1, 1),
        next_update: date_time_ymd(2023, 12, 1),
        crl_number: SerialNumber::from(1u64),
        issuing_distribution_point: None,
        revoked_certs: serials.iter().map(revoked).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(&Issuer::from_params(&ca.params, &ca.key)).unwrap().pem().unwrap()
}

#[test]
fn revocation_lists_that_were_uploaded() {
    let (ca, other) = (Made::authority("root"), Made::authority("other"));
    let mut w = with(&ca, json!({}));
    let client = ca.client("web");
    w.post("crls/a", json!({"crl": crl_of(&ca, &[1, 70_000])}));
    w.post("crls/b", json!({"crl": crl_of(&other, &[4711])}));
    assert!(login(&mut w, &[&client]).is_ok(), "another issuer's number");
    assert_eq!(w.get("crls/a").data["serials"], json!({"1": {}, "70000": {}}));
    assert_eq!(w.list("crls").data["keys"], json!(["a", "b"]));
    w.post("crls/a", json!({"crl": crl_of(&ca, &[1, 4711, 70_000])}));
    assert_eq!(refusal(&mut w, &[&client]), NOT_MATCHING);
    w.delete("crls/a");
    assert!(login(&mut w, &[&client]).is_ok());
    assert_eq!(w.refused(Read, "crls/a", Value::Null), (Code::Invalid, "no such CRL a".into()));
    assert_eq!(w.refused(Delete, "crls/a", Value::Null), (Code::Invalid, "no such CRL a".into()));
    for (body, text) in [
        (json!({}), "one of 'crl' or 'url' must be provided"),
        (json!({"url": ""}), "empty CRL url"),
        (json!({"url": "ldap://x"}), "invalid CRL url: ldap://x"),
        (json!({"crl": "*"}), "failed to parse CRL: it is neither PEM nor DER in base64"),
        (json!({"crl": "AAAA"}), "failed to parse CRL: it is not a CertificateList"),
        (json!({"url": "http://nobody.test/crl"}), "error fetching CRL: nobody is at http://nobody.test/crl"),
    ] {
        assert_eq!(w.refused(Update, "crls/c", body), (Code::Invalid, text.into()));
    }
}

#[test]
fn revocation_lists_are_fetched_again_when_they_end() {
    let ca = Made::authority("root");
    let mut w = with(&ca, json!({}));
    let client = ca.client("web");
    let served = Rc::new(RefCell::new(crl_of(&ca, &[])));
    let s = served.clone();
    w.web = Box::new(move |_| Ok((200, json!(format!("hex:{}", hex::encode(s.borrow().as_bytes()))))));
    w.post("crls/a", json!({"url": "http://ca.test/crl"}));
    assert_eq!(
        w.get("crls/a").data["cdp"],
        json!({"url": "http://ca.test/crl", "valid_until": "2023-12-01T00:00:00Z"})
    );
    assert!(login(&mut w, &[&client]).is_ok());
    *served.borrow_mut() = crl_of(&ca, &[4711]);
    let step = w.with_engine(|e, cx| e.due(cx, "crl/a")).unwrap();
    let ringfence_logical::Step::Side { op, resume } = step else { panic!("a question was due") };
    let ringfence_logical::SideOp::Http(ask) = op else { panic!("{op:?}") };
    assert_eq!(ask.url, "http://ca.test/crl");
    let answer = ringfence_logical::HttpAnswer {
        status: 200,
        headers: Vec::new(),
        body: served.borrow().clone().into_bytes(),
    };
    let answer = ringfence_logical::SideResult::Http(std::sync::Arc::new(answer));
    w.with_engine(|_, cx| resume(cx, &answer)).unwrap();
    assert_eq!(refusal(&mut w, &[&client]), NOT_MATCHING);
}

/// A list that was fetched was believed whoever had signed it: who sat on the way sent an empty one of the right name.
#[test]
fn a_fetched_list_counts_only_if_its_issuer_signed_it() {
    let (ca, impostor) = (Made::authority("root"), Made::authority("root"));
    let mut w = with(&ca, json!({}));
    let client = ca.client("web");
    let served = Rc::new(RefCell::new(crl_of(&ca, &[4711])));
    let s = served.clone();
    w.web = Box::new(move |_| Ok((200, json!(format!("hex:{}", hex::encode(s.borrow().as_bytes()))))));
    w.post("crls/a", json!({"url": "http://ca.test/crl"}));
    assert_eq!(refusal(&mut w, &[&client]), NOT_MATCHING);
    *served.borrow_mut() = crl_of(&impostor, &[]);
    for url in ["http://ca.test/crl", "https://ca.test/crl"] {
        let (code, why) = w.refused(Update, "crls/a", json!({"url": url}));
        assert_eq!((code, why.as_str()), (Code::Invalid, "error fetching CRL: its signature is not its issuer's"));
    }
    assert_eq!(refusal(&mut w, &[&client]), NOT_MATCHING, "the good list stands");
    // an issuer that no entry knows: by TLS, or not at all
    *served.borrow_mut() = crl_of(&Made::authority("unknown"), &[]);
    let (_, why) = w.refused(Update, "crls/b", json!({"url": "http://ca.test/crl"}));
    assert!(why.contains("no certificate of its issuer is trusted here"), "{why}");
    w.post("crls/b", json!({"url": "https://ca.test/crl"}));
}

/// How a responder answers.
#[derive(Clone)]
struct Says {
    status: CertStatus,
    this_update: u64,
    next_update: Option<u64>,
    serial: Option<u8>,
}

impl Says {
    fn good() -> Says {
        Says { status: CertStatus::good(), this_update: NOW - 60, next_update: Some(NOW + 3600), serial: None }
    }

    fn revoked() -> Says {
        let info = RevokedInfo { revocation_time: time(NOW - 600), revocation_reason: None };
        Says { status: CertStatus::revoked(info), ..Says::good() }
    }
}

fn time(seconds: u64) -> OcspGeneralizedTime {
    DateTime::from_unix_duration(Duration::from_secs(seconds)).unwrap().into()
}

/// An answer to a question, signed by somebody.
fn answer(question: &[u8], says: &Says, signer: &Made, shown: &[&Made]) -> Vec<u8> {
    let mut id = OcspRequest::from_der(question).unwrap().tbs_request.request_list[0].req_cert.clone();
    if let Some(other) = says.serial {
        id.serial_number = x509_cert::serial_number::SerialNumber::new(&[other]).unwrap();
    }
    let certificate = x509_cert::Certificate::from_der(&signer.der).unwrap();
    let data = ResponseData {
        version: Version::V1,
        responder_id: ResponderId::ByName(certificate.tbs_certificate.subject),
        produced_at: OcspGeneralizedTime(GeneralizedTime::from_unix_duration(Duration::from_secs(NOW)).unwrap()),
        responses: vec![SingleResponse {
            cert_id: id,
            cert_status: says.status,
            this_update: time(says.this_update),
            next_update: says.next_update.map(time),
            single_extensions: None,
        }],
        response_extensions: None,
    };
    let signature = signer.key.sign(&data.to_der().unwrap()).unwrap();
    let certs: Vec<_> = shown.iter().map(|m| x509_cert::Certificate::from_der(&m.der).unwrap()).collect();
    let basic = BasicOcspResponse {
        tbs_response_data: data,
        // ecdsa-with-SHA256
        signature_algorithm: AlgorithmIdentifierOwned {
            oid: ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2"),
            parameters: None,
        },
        signature: BitString::from_bytes(&signature).unwrap(),
        certs: (!certs.is_empty()).then_some(certs),
    };
    OcspResponse::successful(basic).unwrap().to_der().unwrap()
}

type Responder = Box<dyn Fn(&str, &[u8]) -> Result<Vec<u8>, String>>;

fn with_responder(ca: &Made, extra: Value, responder: Responder) -> World {
    let mut body = json!({"ocsp_enabled": true, "ocsp_servers_override": "http://ocsp.test/a"});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let mut w = with(ca, body);
    w.web =
        Box::new(move |ask| responder(&ask.url, &ask.body).map(|b| (200, json!(format!("hex:{}", hex::encode(b))))));
    w
}

#[test]
fn cve_2024_2660_only_good_answers_of_the_right_signer_count() {
    let ca = Rc::new(Made::authority("root"));
    let client = ca.client("web");
    let mut delegated = client_params("responder");
    delegated.extended_key_usages = vec![ExtendedKeyUsagePurpose::OcspSigning];
    let delegate = Rc::new(ca.signs(delegated, KeyPair::generate().unwrap()));
    let stranger = Rc::new(Made::authority("root"));
    let plain = Rc::new(ca.client("plain"));
    let run = |says: Says, signer: &Rc<Made>, show: bool, extra: Value| {
        let signer = signer.clone();
        let mut w = with_responder(
            &ca,
            extra,
            Box::new(move |_, q| {
                Ok(answer(q, &says, &signer, if show { vec![&*signer] } else { vec![] }.as_slice()))
            }),
        );
        login(&mut w, &[&client]).is_ok()
    };
    let none = || json!({});
    assert!(run(Says::good(), &ca, false, none()));
    assert!(run(Says::good(), &delegate, true, none()), "the issuer delegated");
    assert!(!run(Says::revoked(), &ca, false, none()));
    assert!(
        !run(Says::revoked(), &ca, false, json!({"ocsp_fail_open": true})),
        "open to failures, not to revocations"
    );
    assert!(!run(Says::good(), &stranger, true, none()), "the same name, another key");
    assert!(!run(Says::good(), &plain, true, none()), "a client is no responder");
    assert!(!run(Says { next_update: Some(NOW - 30), ..Says::good() }, &ca, false, none()), "stale");
    assert!(!run(Says { this_update: NOW + 7200, ..Says::good() }, &ca, false, none()), "of the future");
    assert!(!run(Says { serial: Some(9), ..Says::good() }, &ca, false, none()), "another certificate's");
    assert!(!run(Says { status: CertStatus::unknown(), ..Says::good() }, &ca, false, none()));
    assert!(!run(
        Says { this_update: NOW - 900, ..Says::good() },
        &ca,
        false,
        json!({"ocsp_this_update_max_age": 600})
    ));
    assert!(run(Says::good(), &stranger, true, json!({"ocsp_ca_certificates": stranger.pem})), "trusted for it");
    assert!(run(Says::good(), &stranger, true, json!({"ocsp_fail_open": true})));
}

/// Whoever held a token when his certificate was revoked could renew it until its longest life was over.
#[test]
fn a_renewal_asks_the_responder_again() {
    let ca = Rc::new(Made::authority("root"));
    let client = ca.client("web");
    let revoked = Rc::new(std::cell::Cell::new(false));
    let (signer, says) = (ca.clone(), revoked.clone());
    let responder = move |_: &str, q: &[u8]| {
        Ok(answer(q, &if says.get() { Says::revoked() } else { Says::good() }, &signer, &[]))
    };
    let mut w = with_responder(&ca, json!({}), Box::new(responder));
    let auth = login(&mut w, &[&client]).unwrap();
    let prove = |w: &mut World, revokes: bool| {
        revoked.set(revokes);
        w.peer_certificates = vec![client.der.clone()];
        let step = w.with_engine(|e, cx| e.prove_renewal(cx, &auth.internal)).unwrap();
        w.finish(Update, "login", step).map(drop).map_err(|e| e.errors[0].to_string())
    };
    assert_eq!(prove(&mut w, false), Ok(()));
    assert_eq!(prove(&mut w, true).unwrap_err(), NOT_MATCHING);
    w.post("config", json!({"disable_binding": true}));
    assert_eq!(prove(&mut w, true), Ok(()), "no certificate is looked at");
    w.post("config", json!({"disable_binding": false}));
    w.post("certs/web", json!({"ocsp_enabled": false}));
    assert_eq!(prove(&mut w, true), Ok(()), "nobody is asked");
}

#[test]
fn responders_that_fail_or_disagree() {
    let ca = Rc::new(Made::authority("root"));
    let client = ca.client("web");
    let run = |extra: Value| {
        let signer = ca.clone();
        let mut w = with_responder(
            &ca,
            extra,
            Box::new(move |url, q| match url {
                "http://ocsp.test/down" => Err("connection refused".into()),
                "http://ocsp.test/junk" => Ok(b"junk".to_vec()),
                "http://ocsp.test/revoked" => Ok(answer(q, &Says::revoked(), &signer, &[])),
                _ => Ok(answer(q, &Says::good(), &signer, &[])),
            }),
        );
        login(&mut w, &[&client]).is_ok()
    };
    let of = |servers: &str, all: bool, open: bool| json!({"ocsp_servers_override": servers, "ocsp_query_all_servers": all, "ocsp_fail_open": open});
    let (down, junk, revoked, good) =
        ("http://ocsp.test/down", "http://ocsp.test/junk", "http://ocsp.test/revoked", "http://ocsp.test/good");
    assert!(!run(of(down, false, false)) && run(of(down, false, true)));
    assert!(run(of(&format!("{down},{junk},{good}"), false, false)));
    assert!(!run(of(&format!("{down},{good}"), true, false)), "all must agree");
    assert!(run(of(&format!("{good},{revoked}"), false, false)), "the first that answers decides");
    assert!(!run(of(&format!("{good},{revoked}"), true, true)));
}

#[test]
fn entries_and_settings_are_checked_and_read_back() {
    let ca = Made::authority("root");
    let mut w = world();
    for bad in [json!({}), json!({"certificate": "junk"}), json!({"certificate": ca.key.serialize_pem()})] {
        assert_eq!(w.refused(Update, "certs/a", bad), (Code::Invalid, "failed to parse certificate".into()));
    }
    let mut server = client_params("web");
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let server = ca.signs(server, KeyPair::generate().unwrap());
    assert_eq!(
        w.refused(Update, "certs/a", json!({"certificate": server.pem})).1,
        "nonCA certificates should have TLS client authentication set as an extended key usage"
    );
    assert!(
        w.refused(Update, "certs/a", json!({"certificate": ca.pem, "required_extensions": "x"}))
            .1
            .contains("required extension")
    );
    assert_eq!(w.get("certs/a").code, Code::NotFound);
    w.post("certs/A", json!({"certificate": ca.pem, "allowed_dns_sans": "a,b", "policies": "p", "ttl": 60}));
    let read = w.get("certs/a").data;
    assert_eq!(
        (&read["display_name"], &read["allowed_dns_sans"], &read["policies"]),
        (&json!("a"), &json!(["a", "b"]), &json!(["p"]))
    );
    assert_eq!((&read["ocsp_max_retries"], &read["ttl"]), (&json!(4), &json!(60)));
    assert_eq!(w.list("certs").data["keys"], json!(["a"]));
    assert!(w.refused(Update, "config", json!({"ocsp_cache_size": 1})).1.starts_with("invalid cache size 1"));
    w.post("config", json!({"disable_binding": true}));
    assert_eq!(
        (&w.get("config").data["disable_binding"], &w.get("config").data["ocsp_cache_size"]),
        (&json!(true), &json!(100))
    );
}
