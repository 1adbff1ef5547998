//! Leaf certificates: issued with a fresh key, or signed for a request. Every value, whether it came as JSON or in a
//! request's DER, is judged by the same code.

use crate::authority::Authority;
use crate::cert::{self, Request, Signed, Subject, Template};
use crate::key::{self, Kind, Private, Spec};
use crate::metadata;
use crate::names::{self, Asker};
use crate::pem::{self, Format};
use crate::role::{self, Role};
use crate::store::{self, Outliving, Usage};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use der::oid::AssociatedOid;
use ringfence_base::duration;
use ringfence_logical::cx::cidr_allows;
use ringfence_logical::{Args, Compute, Cx, Error, LeaseTerms, Map, Outcome, Response, SideResult, Step};
use rustls_pki_types::pem::SectionKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, NameConstraints, SubjectAltName,
    SubjectKeyIdentifier,
};
use zeroize::Zeroizing;

/// The secret type of leases.
pub const SECRET: &str = "pki";

/// What the request for a leaf comes from.
pub enum Source<'r> {
    /// JSON alone.
    Json,
    /// A certificate request, under the role's rules.
    Csr(&'r Request),
}

impl Source<'_> {
    fn csr(&self) -> Option<&Request> {
        match self {
            Source::Json => None,
            Source::Csr(r) => Some(r),
        }
    }
}

/// Names and subject as the role lets them stand.
pub struct Judged {
    /// Subject.
    pub subject: Subject,
    /// Subject alternative names.
    pub sans: Vec<GeneralName>,
    /// For the answer.
    pub warnings: Vec<String>,
}

/// The names of a request, sorted by kind.
#[derive(Debug, Default)]
struct Wanted {
    dns: Vec<String>,
    emails: Vec<String>,
    ips: Vec<IpAddr>,
    uris: Vec<String>,
    others: Vec<(String, String)>,
}

fn push_new<T: PartialEq>(list: &mut Vec<T>, value: T) {
    if !list.contains(&value) {
        list.push(value);
    }
}

fn wanted_by_json(args: &Args, role: &Role) -> Result<Wanted, Error> {
    let mut w = Wanted::default();
    let mut alt_names: Vec<&str> =
        args.str("alt_names").split(',').map(str::trim).filter(|n| !n.is_empty()).collect();
    alt_names.sort_unstable();
    for n in alt_names {
        match n.contains('@') {
            true => push_new(&mut w.emails, n.to_owned()),
            // what is no host name is no DNS name; the role's check of it comes first
            false => push_new(&mut w.dns, n.to_owned()),
        }
    }
    let ips = args.list("ip_sans");
    if !ips.is_empty() && !role.allow_ip_sans {
        let shown = ips.join(" ");
        return Err(Error::invalid(format!(
            "IP Subject Alternative Names are not allowed in this role, but was provided [{shown}]"
        )));
    }
    for text in ips {
        let ip = text.parse().map_err(|_| Error::invalid(format!("the value {text:?} is not a valid IP address")))?;
        push_new(&mut w.ips, ip);
    }
    w.uris = args.list("uri_sans");
    if !w.uris.is_empty() && role.allowed_uri_sans.is_empty() {
        return Err(Error::invalid(
            "URI Subject Alternative Names are not allowed in this role, but were provided via the API",
        ));
    }
    for text in args.list("other_sans") {
        w.others.push(names::parse_other_san(&text)?);
    }
    Ok(w)
}

fn wanted_by_csr(csr: &Request, role: &Role) -> Result<Wanted, Error> {
    let mut w = Wanted::default();
    for san in &csr.sans {
        match san {
            GeneralName::DnsName(n) => push_new(&mut w.dns, n.as_str().to_owned()),
            GeneralName::Rfc822Name(n) => push_new(&mut w.emails, n.as_str().to_owned()),
            GeneralName::UniformResourceIdentifier(n) => push_new(&mut w.uris, n.as_str().to_owned()),
            GeneralName::IpAddress(bytes) => {
                let ip = match bytes.as_bytes() {
                    b if b.len() == 4 => {
                        IpAddr::from(<[u8; 4]>::try_from(b).unwrap_or(Ipv4Addr::UNSPECIFIED.octets()))
                    }
                    b if b.len() == 16 => {
                        IpAddr::from(<[u8; 16]>::try_from(b).unwrap_or(Ipv6Addr::UNSPECIFIED.octets()))
                    }
                    _ => {
                        return Err(Error::invalid(
                            "certificate request could not be parsed: an IP address of a length that there is not",
                        ));
                    }
                };
                push_new(&mut w.ips, ip);
            }
            GeneralName::OtherName(o) => match cert::other_text(o) {
                Some(pair) => push_new(&mut w.others, pair),
                None => {
                    return Err(Error::invalid(
                        "could not parse requested other SAN: only UTF8 other SANs are supported",
                    ));
                }
            },
            _ => {
                return Err(Error::invalid(
                    "the certificate request has a subject alternative name of a kind that roles do not know",
                ));
            }
        }
    }
    if !w.ips.is_empty() && !role.allow_ip_sans {
        return Err(Error::invalid(
            "IP Subject Alternative Names are not allowed in this role, but was provided some via CSR",
        ));
    }
    if !w.uris.is_empty() && role.allowed_uri_sans.is_empty() {
        return Err(Error::invalid(
            "URI Subject Alternative Names are not allowed in this role, but were provided via the CSR",
        ));
    }
    Ok(w)
}

/// Judges what a request wants by a role.
pub fn judge(cx: &Cx<'_, '_>, args: &Args, role: &Role, source: &Source<'_>) -> Result<Judged, Error> {
    let asker = Asker { principal: cx.principal };
    let mut warnings = Vec::new();
    let csr = source.csr();
    let common_name = match csr {
        Some(r) if role.use_csr_common_name => {
            if !args.str("common_name").is_empty() {
                warnings.push(
                    "the common_name field was provided but the role is set with \"use_csr_common_name\" set to true"
                        .into(),
                );
            }
            cert::common_name(&r.subject)
        }
        _ => args.str("common_name").to_owned(),
    };
    if common_name.is_empty() && role.require_cn {
        return Err(Error::invalid(
            "the common_name field is required, or must be provided in a CSR with \"use_csr_common_name\" set to \
             true, unless \"require_cn\" is set to false",
        ));
    }
    let mut serial_number = args.str("serial_number").to_owned();
    if let (true, Some(r), "json-csr") = (serial_number.is_empty(), csr, role.serial_number_source.as_str()) {
        serial_number = cert::serial_attribute(&r.subject);
    }
    let mut wanted = match csr {
        Some(r) if role.use_csr_sans => {
            if args.supplied("alt_names") {
                warnings.push(
                    "the alt_names field was provided but the role is set with \"use_csr_sans\" set to true".into(),
                );
            }
            let mut w = wanted_by_csr(r, role)?;
            for text in args.list("other_sans") {
                push_new(&mut w.others, names::parse_other_san(&text)?);
            }
            w
        }
        _ => wanted_by_json(args, role)?,
    };
    if !serial_number.is_empty() && !role.allowed_serial_numbers.iter().any(|a| names::glob(a, &serial_number)) {
        return Err(Error::invalid(format!("serial_number {serial_number} not allowed by this role")));
    }
    if !common_name.is_empty() {
        check_common_name(role, &asker, &common_name)?;
        if !args.bool("exclude_cn_from_sans") {
            if common_name.contains('@') {
                push_new(&mut wanted.emails, common_name.clone());
            } else if names::is_hostname(&common_name) {
                push_new(&mut wanted.dns, common_name.clone());
            }
        }
    }
    // the common name too, if it is to stand here: its own rules may have been switched off, those of names never are
    for n in &wanted.dns {
        if !names::allowed(role, &asker, n) {
            return Err(Error::invalid(format!("subject alternate name {n} not allowed by this role")));
        }
    }
    wanted.dns.retain(|n| names::is_hostname(n) || n.contains('*'));
    for n in &wanted.emails {
        if !names::allowed(role, &asker, n) {
            return Err(Error::invalid(format!("email address {n} not allowed by this role")));
        }
    }
    names::check_other_sans(role, &wanted.others)?;
    for ip in &wanted.ips {
        if !cidr_allows(&role.allowed_ip_sans_cidr, Some(*ip)) {
            return Err(Error::invalid(format!(
                "IP Subject Alternative Name {ip} is not in any CIDR range allowed by this role"
            )));
        }
    }
    for u in &wanted.uris {
        if !role.allowed_uri_sans.iter().any(|a| names::glob(a, u)) {
            let via = if csr.is_some() && role.use_csr_sans { "the CSR" } else { "the API" };
            return Err(Error::invalid(format!(
                "URI Subject Alternative Names were provided via {via} which are not valid for this role"
            )));
        }
        if !u.contains(':') {
            return Err(Error::invalid(format!(
                "the provided URI Subject Alternative Name {u:?} is not a valid URI"
            )));
        }
    }
    let mut user_ids = args.list("user_ids");
    if let Some(r) = csr {
        for id in cert::user_ids(&r.subject) {
            push_new(&mut user_ids, id);
        }
    }
    for id in &user_ids {
        if !role.allowed_user_ids.iter().any(|a| names::glob(a, id)) {
            return Err(Error::invalid(format!("user_id {id} is not allowed by this role")));
        }
    }
    let mut sans = Vec::new();
    for n in &wanted.dns {
        sans.push(cert::dns(n)?);
    }
    for n in &wanted.emails {
        sans.push(cert::email(n)?);
    }
    sans.extend(wanted.ips.iter().map(|ip| cert::ip(*ip)));
    for n in &wanted.uris {
        sans.push(cert::uri(n)?);
    }
    for (oid, value) in &wanted.others {
        sans.push(cert::other(oid, value)?);
    }
    let subject = Subject {
        common_name,
        serial_number,
        country: role.country.clone(),
        organization: role.organization.clone(),
        ou: role.ou.clone(),
        locality: role.locality.clone(),
        province: role.province.clone(),
        street_address: role.street_address.clone(),
        postal_code: role.postal_code.clone(),
        user_ids,
    };
    Ok(Judged { subject, sans, warnings })
}

fn check_common_name(role: &Role, asker: &Asker<'_>, name: &str) -> Result<(), Error> {
    if name.chars().count() > 64 {
        return Err(Error::invalid("the common_name is longer than the 64 characters that a certificate can hold"));
    }
    let validations = |v: &str| role.cn_validations.iter().any(|x| x == v);
    if validations("disabled") {
        return Ok(());
    }
    let fits = match name.contains('@') {
        true => validations("email"),
        false => validations("hostname"),
    };
    match fits && names::allowed(role, asker, name) {
        true => Ok(()),
        false => Err(Error::invalid(format!("common name {name} not allowed by this role"))),
    }
}

/// From when and until when.
pub struct Life {
    /// Epoch seconds.
    pub not_before: u64,
    /// Epoch seconds.
    pub not_after: u64,
}

/// The life of a certificate: what is asked, the role's bounds, the mount's, the issuer's.
pub fn life(
    cx: &Cx<'_, '_>,
    args: &Args,
    role: &Role,
    issuer: Option<(u64, Outliving)>,
    warnings: &mut Vec<String>,
) -> Result<Life, Error> {
    let asked = args.seconds("ttl");
    let asked_end = args.str("not_after");
    if asked > 0 && !asked_end.is_empty() {
        return Err(Error::invalid(
            "Either ttl or not_after should be provided. Both should not be provided in the same request.",
        ));
    }
    let longest = if role.max_ttl > 0 { role.max_ttl } else { cx.mount.max_ttl };
    let mut ttl = match (asked, role.ttl) {
        (0, 0) => cx.mount.default_ttl,
        (0, of_role) => of_role,
        (asked, _) => asked,
    };
    if ttl > longest {
        warnings.push(format!(
            "TTL {:?} is longer than permitted maxTTL {:?}, so maxTTL is being used",
            duration::go_seconds(ttl),
            duration::go_seconds(longest)
        ));
        ttl = longest;
    }
    let end = if asked_end.is_empty() && asked == 0 { role.not_after.as_str() } else { asked_end };
    let now = cx.now.seconds();
    let mut not_after = match end {
        "" => now + ttl,
        text => cert::parse_time(text).ok_or_else(|| {
            Error::invalid(format!("parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse"))
        })?,
    };
    // a role's bound binds a date as it binds a duration; what the role itself says as a date is its owner's word
    if !asked_end.is_empty() && role.max_ttl > 0 && not_after > now + role.max_ttl {
        warnings.push(format!(
            "not_after {asked_end:?} is later than the maxTTL {:?} permits, so maxTTL is being used",
            duration::go_seconds(role.max_ttl)
        ));
        not_after = now + role.max_ttl;
    }
    if not_after <= now {
        return Err(Error::invalid("the not_after time is in the past"));
    }
    if let Some((issuer_end, outliving)) = issuer
        && not_after > issuer_end
    {
        match outliving {
            Outliving::Permit => {}
            Outliving::Truncate => not_after = issuer_end,
            Outliving::Err | Outliving::AlwaysEnforceErr => {
                return Err(Error::invalid(format!(
                    "cannot satisfy request, as TTL would result in notAfter of {} that is beyond the expiration of \
                     the CA certificate at {}",
                    cert::time_text(not_after),
                    cert::time_text(issuer_end)
                )));
            }
        }
    }
    let backdate = args.opt_seconds("not_before_duration").unwrap_or(role.not_before_duration);
    Ok(Life { not_before: now.saturating_sub(backdate), not_after })
}

/// A role's template, without key and life.
fn template(
    cx: &Cx<'_, '_>,
    args: &Args,
    role: &Role,
    source: &Source<'_>,
    authority: &Authority,
    public: x509_cert::spki::SubjectPublicKeyInfoOwned,
) -> Result<(Template, Vec<String>), Error> {
    let mut judged = judge(cx, args, role, source)?;
    let life = life(cx, args, role, Some((authority.not_after(), authority.record.outliving)), &mut judged.warnings)?;
    let non_ca = role.basic_constraints_valid_for_non_ca;
    let t = Template {
        subject: judged.subject.name()?,
        sans: judged.sans,
        key_usage: role.key_usages(),
        ext_key_usage: role::ext_key_usage(role)?,
        policies: role::policies(&role.policy_identifiers)?,
        basic: non_ca.then_some(BasicConstraints { ca: false, path_len_constraint: None }),
        name_constraints: None,
        further: Vec::new(),
        public,
        subject_key_id: Vec::new(),
        not_before: life.not_before,
        not_after: life.not_after,
        urls: authority.urls.clone(),
    };
    Ok((t, judged.warnings))
}

/// Takes a request's extensions over as they are, except what would make a CA of it or speak in the issuer's name.
pub fn take_extensions(t: &mut Template, r: &Request) {
    let issuers_own =
        [BasicConstraints::OID, NameConstraints::OID, SubjectKeyIdentifier::OID, AuthorityKeyIdentifier::OID];
    for e in r.extensions.iter().filter(|e| !issuers_own.contains(&e.extn_id)) {
        match e.extn_id {
            SubjectAltName::OID => t.sans.clear(),
            KeyUsage::OID => t.key_usage.clear(),
            ExtendedKeyUsage::OID => t.ext_key_usage.clear(),
            _ => {}
        }
        t.further.push(e.clone());
    }
}

/// Reads the `csr` field: PEM, or base64 of DER.
pub fn request_of(args: &Args) -> Result<Request, Error> {
    let text = args.str("csr").trim();
    if text.is_empty() {
        return Err(Error::invalid("\"csr\" is empty"));
    }
    let der = pem::first(text, SectionKind::Csr).ok_or_else(|| Error::invalid("csr contains no data"))?;
    Request::parse(&der).map_err(Error::invalid)
}

/// Checks the key of a request against the role.
fn check_key(role: &Role, csr: &Request) -> Result<(), Error> {
    let found = key::public_spec(&csr.public).map_err(Error::invalid)?;
    if role.key_type == "any" {
        return match found.kind == Kind::Rsa && found.bits < 2048 {
            true => {
                Err(Error::invalid(format!("RSA keys < 2048 bits are unsafe and not supported: got {}", found.bits)))
            }
            false => Ok(()),
        };
    }
    let wanted = Spec::parse(&role.key_type, role.key_bits)?;
    if wanted.kind != found.kind {
        return Err(Error::invalid(format!("role requires keys of type {}", wanted.kind.as_str())));
    }
    match found.bits < wanted.bits {
        true => Err(Error::invalid(format!(
            "role requires a minimum of a {}-bit key, but CSR's key is {} bits",
            wanted.bits, found.bits
        ))),
        false => Ok(()),
    }
}

/// The issuer that a request names in its path, or the role's.
fn authority(cx: &mut Cx<'_, '_>, args: &Args, role: &Role) -> Result<Authority, Error> {
    let named = args.str("issuer_ref");
    Authority::load(cx, if named.is_empty() { &role.issuer_ref } else { named }, Usage::IssuingCertificates)
}

/// Keeps a certificate and makes the answer.
#[allow(clippy::too_many_arguments)] // the parts of one answer
fn finish(
    cx: &mut Cx<'_, '_>,
    args: &Args,
    role_name: &str,
    role: &Role,
    authority: &Authority,
    signed: &Signed,
    private: Option<&ShownKey>,
    warnings: Vec<String>,
) -> Outcome {
    if !role.no_store {
        store::save_certificate(cx, &signed.serial, &authority.record.id, &signed.der);
    }
    metadata::save(cx, args, role_name, &authority.record.id, signed);
    let format = Format::parse(args.str("format"))?;
    let mut data = shown(format, authority, signed, args.bool("remove_roots_from_chain"))?;
    if let Some((text, kind)) = private {
        if format == Format::Bundle {
            let rest = data["certificate"].as_str().unwrap_or("").to_owned();
            data.insert("certificate".into(), format!("{}\n{rest}", text.as_str()).into());
        }
        data.insert("private_key".into(), text.as_str().into());
        data.insert("private_key_type".into(), (*kind).into());
    }
    let mut answer = Response { warnings, ..Response::data(data) };
    if role.generate_lease {
        let ttl = signed.not_after.saturating_sub(cx.now.seconds());
        let mut internal = Map::new();
        internal.insert("serial_number".into(), signed.serial.clone().into());
        internal.insert("role".into(), role_name.into());
        answer.lease = Some(LeaseTerms { secret: SECRET, ttl, max_ttl: ttl, renewable: false, internal });
    }
    answer.done()
}

/// The common part of answers that show a certificate.
pub fn shown(format: Format, authority: &Authority, signed: &Signed, without_roots: bool) -> Result<Map, Error> {
    let mut data = Map::new();
    let chain = authority.chain_shown(format, without_roots);
    let mut certificate = pem::shown(format, "CERTIFICATE", &signed.der);
    if format == Format::Bundle && !chain.is_empty() {
        certificate = format!("{certificate}\n{}", chain.join("\n"));
    }
    data.insert("certificate".into(), certificate.into());
    data.insert("issuing_ca".into(), authority.issuer.shown(format).into());
    if !chain.is_empty() {
        data.insert("ca_chain".into(), chain.into());
    }
    data.insert("serial_number".into(), signed.serial.clone().into());
    data.insert("expiration".into(), signed.not_after.into());
    Ok(data)
}

/// `issue/:role`.
pub fn issue(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let role_name = args.str("role").to_owned();
    let role = role::required(cx, &role_name)?;
    if role.key_type == "any" {
        return Err(Error::invalid("role key type \"any\" not allowed for issuing certificates, only signing"));
    }
    Format::parse(args.str("format"))?;
    metadata::check(args, &role)?;
    let spec = Spec::parse(&role.key_type, role.key_bits)?;
    if spec.kind == Kind::Rsa {
        // refused before a key is generated for it
        let authority = authority(cx, args, &role)?;
        let mut judged = judge(cx, args, &role, &Source::Json)?;
        life(cx, args, &role, Some((authority.not_after(), authority.record.outliving)), &mut judged.warnings)?;
        let args = args.clone();
        let then = move |cx: &mut Cx<'_, '_>, key: &Private| {
            // it may have changed while the key was made
            let role = role::required(cx, &role_name)?;
            issue_with(cx, &args, &role_name, role, key)
        };
        return key::generate_then(cx, spec, Box::new(then));
    }
    issue_with(cx, args, &role_name, role, &spec.generate()?)
}

fn issue_with(
    cx: &mut Cx<'_, '_>,
    args: &Args,
    role_name: &str,
    role: Arc<Role>,
    key: &Private,
) -> Result<Step, Error> {
    let authority = authority(cx, args, &role)?;
    let (t, warnings) = template(cx, args, &role, &Source::Json, &authority, key.public()?)?;
    let shown = shown_key(args, key)?;
    sign_then_finish(cx, args, role_name, role, authority, &t, Some(shown), warnings)
}

/// A private key as the answer shows it, and its family.
type ShownKey = (Zeroizing<String>, &'static str);

fn shown_key(args: &Args, key: &Private) -> Result<ShownKey, Error> {
    let text = key.shown(Format::parse(args.str("format"))?, args.str("private_key_format"))?;
    Ok((Zeroizing::new(text), key.spec().kind.as_str()))
}

/// Signs, and finishes. An RSA key signs outside the core, which serves others meanwhile; afterwards the issuer must still
/// be there and be allowed to issue.
#[allow(clippy::too_many_arguments)] // the parts of one answer
fn sign_then_finish(
    cx: &mut Cx<'_, '_>,
    args: &Args,
    role_name: &str,
    role: Arc<Role>,
    authority: Authority,
    t: &Template,
    private: Option<ShownKey>,
    warnings: Vec<String>,
) -> Outcome {
    let signer = authority.signer(key::signature_bits(role.signature_bits)?, role.use_pss);
    let algorithm = signer.algorithm;
    let unsigned = t.unsigned(&signer, cx.rng)?;
    if authority.key.spec().kind != Kind::Rsa {
        let signed = unsigned.complete(&authority.key.sign(algorithm, unsigned.message())?)?;
        return finish(cx, args, role_name, &role, &authority, &signed, private.as_ref(), warnings);
    }
    let authority = Arc::new(authority);
    let by = authority.clone();
    let message = unsigned.message().to_vec();
    let op = Compute::op("sign a certificate", move || match by.key.sign(algorithm, &message) {
        Ok(signature) => SideResult::Bytes(Arc::new(signature)),
        Err(e) => SideResult::Refused(e),
    });
    let (args, role_name) = (args.clone(), role_name.to_owned());
    let resume = Box::new(move |cx: &mut Cx<'_, '_>, result: &SideResult| match result {
        SideResult::Bytes(signature) => {
            let now = store::issuer(cx, &authority.record.id)?;
            if now.certificate != authority.record.certificate || !now.may(Usage::IssuingCertificates) {
                return Err(Error::invalid("the issuer was changed meanwhile; try again"));
            }
            let signed = unsigned.complete(signature)?;
            finish(cx, &args, &role_name, &role, &authority, &signed, private.as_ref(), warnings.clone())
        }
        SideResult::Refused(e) => Err(e.clone()),
        other => Err(Error::internal(format!("signing a certificate: {other:?}"))),
    });
    Ok(Step::Side { op, resume })
}

/// `sign/:role`.
pub fn sign(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let role_name = args.str("role").to_owned();
    let role = role::required(cx, &role_name)?;
    Format::parse(args.str("format"))?;
    metadata::check(args, &role)?;
    let csr = request_of(args)?;
    check_key(&role, &csr)?;
    let authority = authority(cx, args, &role)?;
    let (t, warnings) = template(cx, args, &role, &Source::Csr(&csr), &authority, csr.public.clone())?;
    sign_then_finish(cx, args, &role_name, role, authority, &t, None, warnings)
}

/// The role that sign-verbatim works by: nothing is bounded but issuer, life, leases and storing.
pub fn verbatim_role(args: &Args, named: Option<&Role>) -> Role {
    let mut role = Role::unbounded();
    if let Some(n) = named {
        role.issuer_ref = n.issuer_ref.clone();
        role.ttl = n.ttl;
        role.max_ttl = n.max_ttl;
        role.generate_lease = n.generate_lease;
        role.no_store = n.no_store;
        role.no_store_metadata = n.no_store_metadata;
        role.not_before_duration = n.not_before_duration;
        role.not_after = n.not_after.clone();
        role.use_pss = n.use_pss;
        role.signature_bits = n.signature_bits;
    }
    role.server_flag = false;
    role.client_flag = false;
    role.ext_key_usage = args.list("ext_key_usage");
    role.ext_key_usage_oids = args.list("ext_key_usage_oids");
    if let Some(u) = args.opt_list("key_usage") {
        role.key_usage = u;
    }
    if let Some(b) = args.opt_bool("use_pss") {
        role.use_pss = b;
    }
    if let Some(n) = args.opt_int("signature_bits") {
        role.signature_bits = n;
    }
    role.basic_constraints_valid_for_non_ca = args.bool("basic_constraints_valid_for_non_ca");
    role
}

/// `sign-verbatim[/:role]`.
pub fn sign_verbatim(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let role_name = args.str("role").to_owned();
    let named = match role_name.as_str() {
        "" => None,
        name => Some(role::required(cx, name)?),
    };
    let role = Arc::new(verbatim_role(args, named.as_deref()));
    Format::parse(args.str("format"))?;
    metadata::check(args, &role)?;
    let csr = request_of(args)?;
    check_key(&role, &csr)?;
    let authority = authority(cx, args, &role)?;
    let (t, warnings) = template_for(cx, args, &role, &authority, &csr, true)?;
    sign_then_finish(cx, args, &role_name, role, authority, &t, None, warnings)
}

/// Signs a request by a role: ACME.
pub fn sign_for(
    cx: &mut Cx<'_, '_>,
    args: &Args,
    role: &Role,
    authority: &Authority,
    csr: &Request,
    verbatim: bool,
) -> Result<(Signed, Vec<String>), Error> {
    let (t, warnings) = template_for(cx, args, role, authority, csr, verbatim)?;
    let signed = t.sign(&authority.signer(key::signature_bits(role.signature_bits)?, role.use_pss), cx.rng)?;
    Ok((signed, warnings))
}

/// What a request gets by a role.
fn template_for(
    cx: &mut Cx<'_, '_>,
    args: &Args,
    role: &Role,
    authority: &Authority,
    csr: &Request,
    verbatim: bool,
) -> Result<(Template, Vec<String>), Error> {
    check_key(role, csr)?;
    // verbatim names are not judged: only what a certificate can hold at all is checked
    Ok(match verbatim {
        true => {
            let mut warnings = Vec::new();
            let life =
                life(cx, args, role, Some((authority.not_after(), authority.record.outliving)), &mut warnings)?;
            let mut t = Template {
                subject: csr.subject.clone(),
                sans: csr.sans.clone(),
                key_usage: role.key_usages(),
                ext_key_usage: role::ext_key_usage(role)?,
                policies: None,
                basic: role
                    .basic_constraints_valid_for_non_ca
                    .then_some(BasicConstraints { ca: false, path_len_constraint: None }),
                name_constraints: None,
                further: Vec::new(),
                public: csr.public.clone(),
                subject_key_id: Vec::new(),
                not_before: life.not_before,
                not_after: life.not_after,
                urls: authority.urls.clone(),
            };
            take_extensions(&mut t, csr);
            (t, warnings)
        }
        false => template(cx, args, role, &Source::Csr(csr), authority, csr.public.clone())?,
    })
}

/// Base64 of DER or PEM: what certificates are given as.
pub fn certificate_field(text: &str) -> Option<Vec<u8>> {
    pem::first(text, SectionKind::Certificate).or_else(|| STANDARD.decode(text.trim()).ok())
}
