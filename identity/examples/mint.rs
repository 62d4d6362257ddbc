//! How fast the issuer mints, against the bare library in the same run, and what 10,000 identities cost.
//!
//! `cargo run --release --example mint` (from `identity/`); the ratios are what counts, the rest depends on the machine. One
//! thread. Minting is measured as the identity process does it: with the registry, the caches, and each SVID read back and
//! verified by other code before it leaves.
#![allow(clippy::print_stdout, reason = "it prints a table")]

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use portcullis_identity::{
    Audience, InstanceId, Issuer, IssuerOptions, JwtAlgorithm, Lifetimes, TrustDomain, Workload,
};
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose,
    SanType, SerialNumber,
};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use time::OffsetDateTime;

type Outcome<T> = Result<T, Box<dyn Error>>;

const IDENTITIES: usize = 10_000;
const ROUNDS: usize = 7;
const HOUR: Duration = Duration::from_secs(3600);
const FIVE_MINUTES: Duration = Duration::from_secs(300);

fn main() -> Outcome<()> {
    let mints = if cfg!(debug_assertions) { 500 } else { 5_000 };
    println!("{} mints a round, the median of {ROUNDS} rounds, one thread", mints);
    println!();
    println!("| what | a second | of the bare library |");
    println!("|---|---:|---:|");
    x509(mints)?;
    jwt(mints, JwtAlgorithm::Es256, "ES256")?;
    jwt(mints / 10, JwtAlgorithm::Rs256, "RS256")?;
    println!();
    many()
}

/// The bare library: a key, a certificate with the same extensions, nothing read back.
fn x509(mints: usize) -> Outcome<()> {
    let issuing = KeyPair::generate()?;
    let mut authority = CertificateParams::default();
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority = rcgen::Issuer::from_params(&authority, &issuing);
    let bare = || -> Outcome<()> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        let mut serial = [0u8; 16];
        SystemRandom::new().fill(&mut serial).map_err(|_| "no randomness")?;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI("spiffe://example.org/ns/shop/sa/cart".try_into()?)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.key_identifier_method = KeyIdMethod::Sha256;
        black_box(params.signed_by(&key, &authority)?);
        Ok(())
    };
    let mut site = Site::new(JwtAlgorithm::Es256, 1)?;
    let one = site.name(0)?;
    let mut round = 0;
    let (bare, minted) = rates(
        mints,
        |_| bare(),
        |_| {
            // A new epoch each time, so that nothing comes from the cache.
            round += 1;
            site.issuer.rotate_svids();
            let svid = site.issuer.x509_svid(&one, HOUR, site.now)?;
            if svid.fresh { Ok(()) } else { Err("it came from the cache".into()) }
        },
    )?;
    let svid = site.issuer.x509_svid(&one, HOUR, site.now)?.svid;
    let (leaf, bundle) = (svid.chain.first().ok_or("no leaf")?, site.issuer.bundle());
    let root = *bundle.x509_authorities().first().ok_or("no authority")?;
    let (_, root) = x509_parser::parse_x509_certificate(root)?;
    let checked = median((0..ROUNDS).map(|_| rate(mints, &mut |_| check(leaf, &root))).collect::<Outcome<_>>()?);
    let unchecked = 1.0 / (1.0 / minted - 1.0 / checked);
    row("X.509: key and certificate, bare", bare, None);
    row("X.509-SVID minted and checked", minted, Some(minted / bare));
    row("of that, the check: parsed and verified by other code", checked, None);
    row("so minted, without the check", unchecked, Some(unchecked / bare));
    black_box(round);
    Ok(())
}

/// What it takes to parse a leaf and to verify its signature.
fn check(leaf: &[u8], root: &x509_parser::certificate::X509Certificate<'_>) -> Outcome<()> {
    let (_, leaf) = x509_parser::parse_x509_certificate(leaf)?;
    leaf.verify_signature(Some(root.public_key()))?;
    Ok(())
}

/// The bare library: a signature over as many bytes as a token has.
fn jwt(mints: usize, algorithm: JwtAlgorithm, name: &str) -> Outcome<()> {
    let random = SystemRandom::new();
    let text = [b'x'; 260];
    let rsa = rsa_key()?;
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).map_err(|_| "no key")?;
    let ec =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).map_err(|_| "no key")?;
    let bare = |_| -> Outcome<()> {
        match algorithm {
            JwtAlgorithm::Es256 => drop(black_box(ec.sign(&random, &text).map_err(|_| "no signature")?)),
            JwtAlgorithm::Rs256 => {
                let mut signature = vec![0; rsa.public().modulus_len()];
                rsa.sign(&ring::signature::RSA_PKCS1_SHA256, &random, &text, &mut signature)
                    .map_err(|_| "no signature")?;
                black_box(signature);
            }
        }
        Ok(())
    };
    let mut site = Site::new(algorithm, 1)?;
    let one = site.name(0)?;
    let mut number = 0u64;
    let (bare, minted) = rates(mints, bare, |_| {
        number += 1;
        // Each audience is new, so that nothing comes from the cache.
        let audience: [Audience; 1] = [format!("https://api-{number}.example.org").parse()?];
        let svid = site.issuer.jwt_svid(&one, &audience, FIVE_MINUTES, site.now)?;
        if svid.fresh { Ok(()) } else { Err("it came from the cache".into()) }
    })?;
    let audience: Audience = "https://vault.example.org".parse()?;
    let token = site.issuer.jwt_svid(&one, std::slice::from_ref(&audience), FIVE_MINUTES, site.now)?.svid;
    let checking =
        |_| site.issuer.validate_jwt(token.token(), audience.as_str(), site.now).map(drop).map_err(Into::into);
    let checked = median((0..ROUNDS).map(|_| rate(mints, &mut { checking })).collect::<Outcome<_>>()?);
    let unchecked = 1.0 / (1.0 / minted - 1.0 / checked);
    row(&format!("{name} signature, bare"), bare, None);
    row(&format!("{name} JWT-SVID minted and checked"), minted, Some(minted / bare));
    row("of that, the check", checked, None);
    row("so minted, without the check", unchecked, Some(unchecked / bare));
    Ok(())
}

fn rsa_key() -> Outcome<ring::rsa::KeyPair> {
    use rsa::pkcs8::EncodePrivateKey as _;

    let key = rsa::RsaPrivateKey::new(&mut Seed(SystemRandom::new()), 2048)?;
    Ok(ring::rsa::KeyPair::from_pkcs8(key.to_pkcs8_der()?.as_bytes()).map_err(|_| "no key")?)
}

/// 10,000 identities: memory, caches, and how long it takes to replace all of them at once.
fn many() -> Outcome<()> {
    let mut site = Site::new(JwtAlgorithm::Es256, 0)?;
    let names: Vec<InstanceId> = (0..IDENTITIES).map(|number| site.name(number)).collect::<Result<_, _>>()?;
    let empty = resident()?;
    for number in 0..IDENTITIES {
        site.admit(number)?;
    }
    let admitted = resident()?;
    let begun = Instant::now();
    for name in &names {
        site.issuer.x509_svid(name, HOUR, site.now)?;
    }
    let first = begun.elapsed();
    let with_x509 = resident()?;
    let audience: [Audience; 1] = ["https://vault.example.org".parse()?];
    for name in &names {
        site.issuer.jwt_svid(name, &audience, FIVE_MINUTES, site.now)?;
    }
    let with_both = resident()?;

    let mut warm: Vec<Duration> = Vec::with_capacity(names.len());
    for name in &names {
        let begun = Instant::now();
        black_box(site.issuer.jwt_svid(name, &audience, FIVE_MINUTES, site.now)?);
        warm.push(begun.elapsed());
    }
    warm.sort_unstable();
    let percentile = |part: usize| warm.get(warm.len() * part / 100).copied().unwrap_or_default();

    let begun = Instant::now();
    site.issuer.rotate_svids();
    let replaced = site.issuer.remint_x509(site.now);
    let all = begun.elapsed();
    let failed = replaced.iter().filter(|(_, svid)| svid.is_err()).count();

    let each = |after: u64, before: u64| after.saturating_sub(before) / IDENTITIES as u64;
    println!("| {IDENTITIES} identities | |");
    println!("|---|---:|");
    println!("| memory of one, admitted | {} bytes |", each(admitted, empty));
    println!("| and with its X.509-SVID and key | {} bytes |", each(with_x509, empty));
    println!("| and with a JWT-SVID in its cache | {} bytes |", each(with_both, empty));
    println!("| all X.509-SVIDs minted | {first:.2?} |");
    println!("| all X.509-SVIDs replaced by force ({} done, {failed} failed) | {all:.2?} |", replaced.len());
    println!("| 1,000 of them | {:.2?} |", all / (IDENTITIES / 1000) as u32);
    println!("| a JWT-SVID from the issuer's cache, p50 / p99 | {:.2?} / {:.2?} |", percentile(50), percentile(99));
    Ok(())
}

/// Both in turns, so that a machine that is busy for a while is busy for both; the median of the rounds.
fn rates(
    count: usize,
    mut bare: impl FnMut(usize) -> Outcome<()>,
    mut minted: impl FnMut(usize) -> Outcome<()>,
) -> Outcome<(f64, f64)> {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        first.push(rate(count, &mut bare)?);
        second.push(rate(count, &mut minted)?);
    }
    Ok((median(first), median(second)))
}

fn rate(count: usize, act: &mut impl FnMut(usize) -> Outcome<()>) -> Outcome<f64> {
    let begun = Instant::now();
    for number in 0..count {
        act(number)?;
    }
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or_default()
}

fn row(what: &str, rate: f64, ratio: Option<f64>) {
    let ratio = ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
    println!("| {what} | {rate:.0} | {ratio} |");
}

/// Bytes of this process that are in memory.
fn resident() -> Outcome<u64> {
    let status = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = status.split_whitespace().nth(1).ok_or("statm")?.parse()?;
    Ok(pages * u64::try_from(rustix::param::page_size())?)
}

struct Site {
    issuer: Issuer,
    now: OffsetDateTime,
    _dir: tempfile::TempDir,
}

impl Site {
    fn new(algorithm: JwtAlgorithm, identities: usize) -> Outcome<Self> {
        let dir = tempfile::tempdir()?;
        let now = OffsetDateTime::now_utc();
        let domain: TrustDomain = "example.org".parse()?;
        let mut options = IssuerOptions::new(Lifetimes::default());
        options.jwt_algorithm = algorithm;
        let issuer = Issuer::open_with(&dir.path().join("identity"), &domain, options, now)?;
        let mut site = Self { issuer, now, _dir: dir };
        for number in 0..identities {
            site.admit(number)?;
        }
        Ok(site)
    }

    fn name(&self, number: usize) -> Outcome<InstanceId> {
        Ok(format!("01JD3Z8Y6E5T4R3W2Q{number:08}").parse()?)
    }

    fn admit(&mut self, number: usize) -> Outcome<()> {
        let workload = Workload {
            instance: self.name(number)?,
            spiffe_id: format!("spiffe://example.org/ns/shop/sa/cart-{number}").parse()?,
            digest: format!("sha256:{number:064x}"),
            component: format!("cart-{number}"),
            exportable: false,
        };
        Ok(self.issuer.admit(workload)?)
    }
}

/// The system's randomness for the RSA key of the bare library.
struct Seed(SystemRandom);

impl rsa::rand_core::RngCore for Seed {
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.fill_bytes(&mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill_bytes(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn fill_bytes(&mut self, to: &mut [u8]) {
        // A bench key: all ones ends the search for a prime if there is no randomness.
        if self.0.fill(to).is_err() {
            to.fill(0xff);
        }
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), rsa::rand_core::Error> {
        self.fill_bytes(to);
        Ok(())
    }
}

impl rsa::rand_core::CryptoRng for Seed {}
