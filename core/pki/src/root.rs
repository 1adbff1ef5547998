//! Authorities: roots and intermediates generated, intermediates signed, foreign roots cross-signed.

use crate::authority::Authority;
use crate::cert::{self, Signed, Signer, Subject, Template};
use crate::issue::{self, Source};
use crate::key::{self, Private, Spec};
use crate::pem::{self, Format};
use crate::role::{self, Role};
use crate::store::{self, DefaultIssuer, KeyRecord, Outliving, Usage};
use ringfence_logical::{Args, Cx, Error, Map, Outcome, Response, Step, nothing};
use x509_cert::ext::pkix::{BasicConstraints, KeyUsages, NameConstraints};
use x509_cert::spki::SubjectPublicKeyInfoOwned;

/// What a generated thing is to become.
#[derive(Clone, Copy, PartialEq)]
enum What {
    Root,
    Intermediate,
}

/// Where its key comes from and goes to.
#[derive(Clone, Copy, PartialEq)]
enum Origin {
    Internal,
    Exported,
    Existing,
}

fn origin(args: &Args) -> Result<Origin, Error> {
    match args.str("exported") {
        "internal" => Ok(Origin::Internal),
        "exported" => Ok(Origin::Exported),
        "existing" => Ok(Origin::Existing),
        "kms" => Err(Error::invalid("managed keys are not supported: use internal, exported or existing")),
        other => Err(Error::invalid(format!("unknown key origin {other:?}"))),
    }
}

/// The role that CA certificates are judged by: everything may stand, with the request's own subject.
fn ca_role(args: &Args) -> Role {
    Role {
        // of a request, only the name is taken, and only if none was given
        use_csr_common_name: args.str("common_name").is_empty(),
        use_csr_sans: false,
        serial_number_source: "json".into(),
        ou: args.list("ou"),
        organization: args.list("organization"),
        country: args.list("country"),
        locality: args.list("locality"),
        province: args.list("province"),
        street_address: args.list("street_address"),
        postal_code: args.list("postal_code"),
        ..Role::unbounded()
    }
}

fn name_constraints(args: &Args) -> Result<Option<NameConstraints>, Error> {
    let build = |which: &str| -> Result<_, Error> {
        let mut trees = Vec::new();
        let domains = args.list(&format!("{which}_dns_domains"));
        for d in &domains {
            trees.push(cert::subtree(cert::dns(d)?));
        }
        for r in args.list(&format!("{which}_ip_ranges")) {
            let range = cert::range(&r).ok_or_else(|| Error::invalid(format!("invalid CIDR address: {r}")))?;
            trees.push(cert::subtree(range));
        }
        for e in args.list(&format!("{which}_email_addresses")) {
            trees.push(cert::subtree(cert::email(&e)?));
        }
        for u in args.list(&format!("{which}_uri_domains")) {
            trees.push(cert::subtree(cert::uri(&u)?));
        }
        Ok((!trees.is_empty()).then_some(trees))
    };
    let (permitted_subtrees, excluded_subtrees) = (build("permitted")?, build("excluded")?);
    Ok((permitted_subtrees.is_some() || excluded_subtrees.is_some())
        .then_some(NameConstraints { permitted_subtrees, excluded_subtrees }))
}

fn path_length(n: i64) -> Result<Option<u8>, Error> {
    match n {
        ..0 => Ok(None),
        n => u8::try_from(n).map(Some).map_err(|_| Error::invalid("max_path_length is too large")),
    }
}

fn ca_key_usage(args: &Args) -> Vec<KeyUsages> {
    let mut bits = vec![KeyUsages::KeyCertSign, KeyUsages::CRLSign];
    for b in role::key_usages(&args.list("key_usage")) {
        if !bits.contains(&b) {
            bits.push(b);
        }
    }
    bits
}

/// The template of a CA certificate from JSON.
fn ca_template(
    cx: &Cx<'_, '_>,
    args: &Args,
    source: &Source<'_>,
    public: SubjectPublicKeyInfoOwned,
    issuer: Option<(u64, Outliving)>,
    warnings: &mut Vec<String>,
) -> Result<Template, Error> {
    let role = ca_role(args);
    let judged = issue::judge(cx, args, &role, source)?;
    warnings.extend(judged.warnings);
    if judged.subject == Subject::default() {
        warnings
            .push("this certificate has an empty subject: many verifiers refuse an authority without a name".into());
    }
    let life = issue::life(cx, args, &role, issuer, warnings)?;
    let length = path_length(args.int("max_path_length"))?;
    if length == Some(0) {
        warnings.push(
            "Max path length of the generated certificate is zero. This certificate cannot be used to issue \
             intermediate CA certificates."
                .into(),
        );
    }
    Ok(Template {
        subject: judged.subject.name()?,
        sans: judged.sans,
        key_usage: ca_key_usage(args),
        ext_key_usage: Vec::new(),
        policies: None,
        basic: Some(BasicConstraints { ca: true, path_len_constraint: length }),
        name_constraints: name_constraints(args)?,
        further: Vec::new(),
        public,
        subject_key_id: Vec::new(),
        not_before: life.not_before,
        not_after: life.not_after,
        urls: Default::default(),
    })
}

/// `root/generate/:exported`, `issuers/generate/root/:exported`.
pub fn generate_root(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    generate(cx, args, What::Root)
}

/// `root/rotate/:exported`: as generate, named `next` unless another name is given.
pub fn rotate_root(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    generate(cx, args, What::Root)
}

/// `intermediate/generate/:exported`, `issuers/generate/intermediate/:exported`.
pub fn generate_intermediate(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    generate(cx, args, What::Intermediate)
}

/// `intermediate/cross-sign`: a request with a key that is here already.
pub fn cross_sign(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    generate(cx, args, What::Intermediate)
}

fn key_of_ref(cx: &mut Cx<'_, '_>, args: &Args) -> Result<KeyRecord, Error> {
    let reference = args.str("key_ref");
    store::key_by_ref(cx, if reference.is_empty() { "default" } else { reference })
}

fn generate(cx: &mut Cx<'_, '_>, args: &Args, what: What) -> Outcome {
    // cross-sign has no origin in its path: its key exists
    let origin = if args.supplied("exported") { origin(args)? } else { Origin::Existing };
    Format::parse(args.str("format"))?;
    key::signature_bits(args.int("signature_bits"))?;
    store::check_issuer_name(cx, args.str("issuer_name"), "")?;
    if origin == Origin::Existing {
        let record = key_of_ref(cx, args)?;
        let private = store::private(&record)?;
        return generated(cx, args, what, origin, &private);
    }
    store::check_key_name(cx, args.str("key_name"), "")?;
    let spec = Spec::parse(args.str("key_type"), args.int("key_bits"))?;
    let args = args.clone();
    key::generate_then(cx, spec, Box::new(move |cx, private| generated(cx, &args, what, origin, private)))
}

fn generated(cx: &mut Cx<'_, '_>, args: &Args, what: What, origin: Origin, private: &Private) -> Result<Step, Error> {
    let format = Format::parse(args.str("format"))?;
    let algorithm = private.algorithm(key::signature_bits(args.int("signature_bits"))?, args.bool("use_pss"));
    let mut warnings = Vec::new();
    let mut data = Map::new();
    let key_name = if origin == Origin::Existing { "" } else { args.str("key_name") };
    match what {
        What::Root => {
            let rotating = cx.req.path.starts_with("root/rotate/");
            let name = match args.str("issuer_name") {
                "" if rotating => "next",
                n => n,
            };
            store::check_issuer_name(cx, name, "")?;
            let mut t = ca_template(cx, args, &Source::Json, private.public()?, None, &mut warnings)?;
            t.urls = store::config(cx, "urls")?;
            if t.urls.is_empty() {
                warnings.push(NO_AIA.into());
            }
            // templated URLs need an issuer id, which comes with the certificate
            if t.urls.enable_templating {
                t.urls = Default::default();
                warnings.push(
                    "This mount's AIA URLs are templated; a root has no issuer id yet while it is signed, so it \
                     carries none."
                        .into(),
                );
            }
            let signer = Signer { key: private, algorithm, name: t.subject.clone(), key_id: cert::key_id(&t.public) };
            let signed = t.sign(&signer, cx.rng)?;
            let (key, _) = store::add_key(cx, private, key_name)?;
            let (issuer, _) = store::add_issuer(cx, &signed.der, name)?;
            follow_default(cx, &issuer.id)?;
            let certificate = pem::shown(format, "CERTIFICATE", &signed.der);
            data.insert("issuing_ca".into(), certificate.clone().into());
            data.insert("certificate".into(), certificate.into());
            data.insert("serial_number".into(), signed.serial.into());
            data.insert("expiration".into(), signed.not_after.into());
            data.insert("issuer_id".into(), issuer.id.into());
            data.insert("issuer_name".into(), issuer.name.into());
            data.insert("key_id".into(), key.id.into());
            data.insert("key_name".into(), key.name.into());
        }
        What::Intermediate => {
            let mut unused = Vec::new();
            let mut t = ca_template(cx, args, &Source::Json, private.public()?, None, &mut unused)?;
            if !args.bool("add_basic_constraints") {
                t.basic = None;
            }
            t.key_usage = role::key_usages(&args.list("key_usage"));
            let csr = t.request(private, algorithm)?;
            let (key, _) = store::add_key(cx, private, key_name)?;
            data.insert("csr".into(), pem::shown(format, "CERTIFICATE REQUEST", &csr).into());
            data.insert("key_id".into(), key.id.into());
        }
    }
    if origin == Origin::Exported {
        let text = private.shown(format, args.str("private_key_format"))?;
        if format == Format::Bundle {
            let name = if what == What::Root { "certificate" } else { "csr" };
            let rest = data[name].as_str().unwrap_or("").to_owned();
            data.insert(name.into(), format!("{text}\n{rest}").into());
        }
        data.insert("private_key".into(), text.into());
        data.insert("private_key_type".into(), private.spec().kind.as_str().into());
    }
    Response { warnings, ..Response::data(data) }.done()
}

/// Told when certificates will carry no URLs.
pub const NO_AIA: &str = "This mount hasn't configured any authority information access (AIA) fields; this may make \
                          it harder for systems to find missing certificates in the chain or to validate revocation \
                          status of certificates. Consider updating /config/urls or the newly generated issuer with \
                          this information.";

/// The first issuer becomes the default; later ones only if the mount says so.
pub fn follow_default(cx: &mut Cx<'_, '_>, id: &str) -> Result<(), Error> {
    let chosen: DefaultIssuer = store::config(cx, "issuers")?;
    if chosen.default.is_empty() || chosen.default_follows_latest_issuer {
        store::save_config(cx, "issuers", &DefaultIssuer { default: id.into(), ..chosen });
    }
    Ok(())
}

/// `root/sign-intermediate`, `issuer/:ref/sign-intermediate`.
pub fn sign_intermediate(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let format = Format::parse(args.str("format"))?;
    let csr = issue::request_of(args)?;
    let authority = Authority::load(cx, args.str("issuer_ref"), Usage::IssuingCertificates)?;
    let found = key::public_spec(&csr.public).map_err(Error::invalid)?;
    if found.kind == key::Kind::Rsa && found.bits < 2048 {
        return Err(Error::invalid(format!("RSA keys < 2048 bits are unsafe and not supported: got {}", found.bits)));
    }
    let outliving = match (args.bool("enforce_leaf_not_after_behavior"), authority.record.outliving) {
        (_, Outliving::AlwaysEnforceErr) => Outliving::Err,
        (true, o) => o,
        (false, _) => Outliving::Permit,
    };
    let mut warnings = Vec::new();
    let mut t = ca_template(
        cx,
        args,
        &Source::Csr(&csr),
        csr.public.clone(),
        Some((authority.not_after(), outliving)),
        &mut warnings,
    )?;
    if args.bool("use_csr_values") {
        t.subject = csr.subject.clone();
        t.sans = csr.sans.clone();
        t.key_usage = Vec::new();
        issue::take_extensions(&mut t, &csr);
        t.further.retain(|e| e.extn_id != <x509_cert::ext::pkix::KeyUsage as der::oid::AssociatedOid>::OID);
        t.key_usage = ca_key_usage(args);
    }
    let of_issuer = cert::find::<BasicConstraints>(authority.certificate().tbs_certificate.extensions.as_ref())
        .and_then(|b| b.path_len_constraint);
    if let (Some(bound), Some(b)) = (of_issuer, t.basic.as_mut()) {
        if bound == 0 {
            return Err(Error::invalid(
                "the signing certificate has a max path length of zero, and cannot issue further CA certificates",
            ));
        }
        b.path_len_constraint = Some(b.path_len_constraint.map_or(bound - 1, |n| n.min(bound - 1)));
    }
    let skid = args.str("skid").replace([':', '-'], "");
    if !skid.is_empty() {
        t.subject_key_id = hex::decode(&skid)
            .map_err(|e| Error::invalid(format!("cannot parse requested SKID value as hex: {e}")))?;
    }
    t.urls = authority.urls.clone();
    if t.urls.is_empty() {
        warnings.push(NO_AIA.into());
    }
    let signed =
        t.sign(&authority.signer(key::signature_bits(args.int("signature_bits"))?, args.bool("use_pss")), cx.rng)?;
    store::save_certificate(cx, &signed.serial, &authority.record.id, &signed.der);
    Response { warnings, ..Response::data(issue::shown(format, &authority, &signed, false)?) }.done()
}

/// `root/sign-self-issued`: a foreign root, signed by ours under its own name and key.
pub fn sign_self_issued(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let der = issue::certificate_field(args.str("certificate"))
        .ok_or_else(|| Error::invalid("certificate could not be PEM-decoded"))?;
    let given = cert::parse(&der).map_err(Error::invalid)?;
    if !cert::is_ca(&given) {
        return Err(Error::invalid("given certificate is not a CA certificate"));
    }
    if given.tbs_certificate.issuer != given.tbs_certificate.subject || !cert::signed_by(&given, &given) {
        return Err(Error::invalid("given certificate is not self-issued"));
    }
    let authority = Authority::load(cx, args.str("issuer_ref"), Usage::IssuingCertificates)?;
    let found = key::public_spec(&given.tbs_certificate.subject_public_key_info).map_err(Error::invalid)?;
    if args.bool("require_matching_certificate_algorithms") && found.kind != authority.key.spec().kind {
        return Err(Error::invalid("given certificate's public key algorithm does not match the issuer's"));
    }
    let extensions = given.tbs_certificate.extensions.clone().unwrap_or_default();
    let t = Template {
        subject: given.tbs_certificate.subject.clone(),
        sans: Vec::new(),
        key_usage: Vec::new(),
        ext_key_usage: Vec::new(),
        policies: None,
        basic: None,
        name_constraints: None,
        further: extensions,
        public: given.tbs_certificate.subject_public_key_info.clone(),
        subject_key_id: cert::subject_key_id(&given),
        not_before: given.tbs_certificate.validity.not_before.to_unix_duration().as_secs(),
        not_after: cert::not_after(&given),
        urls: authority.urls.clone(),
    };
    let signed: Signed = t.sign(&authority.signer(0, false), cx.rng)?;
    store::save_certificate(cx, &signed.serial, &authority.record.id, &signed.der);
    let mut data = Map::new();
    data.insert("certificate".into(), pem::certificate(&signed.der).into());
    data.insert("issuing_ca".into(), authority.record.pem().into());
    Response::data(data).done()
}

/// `DELETE root`: every issuer and every key.
pub fn delete_all(cx: &mut Cx<'_, '_>, _args: &Args) -> Outcome {
    let issuers = store::issuers(cx)?;
    let keys = store::keys(cx)?;
    for i in &issuers {
        cx.delete(store::ISSUERS, i.id.as_bytes());
    }
    for k in &keys {
        cx.delete(store::KEYS, k.id.as_bytes());
    }
    store::save_config(cx, "issuers", &DefaultIssuer::default());
    store::save_config(cx, "keys", &store::DefaultKey::default());
    match issuers.is_empty() && keys.is_empty() {
        true => Response::default().warn("no issuers or keys were there to be deleted").done(),
        false => nothing(),
    }
}
