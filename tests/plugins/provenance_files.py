"""Files for the provenance tests: drawn pictures, metadata of each kind, and signatures by certificates made here."""

import datetime
import io
import json

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/"
GENERATED = SOURCE + "trainedAlgorithmicMedia"
EDITED = SOURCE + "compositeWithTrainedAlgorithmicMedia"
CAPTURED = SOURCE + "digitalCapture"
USER_COMMENT, MAKER_NOTE, MAKE, MODEL, SOFTWARE, DESCRIPTION = 0x9286, 0x927C, 0x010F, 0x0110, 0x0131, 0x010E

INFOTEXT = (
    "a lighthouse, at night\nNegative prompt: blurry\n"
    'Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 12345, Size: 512x512, Model hash: abc, Model: "v1-5, pruned"{}'
)
GRAPH = {
    "3": {
        "class_type": "KSampler",
        "inputs": {"seed": 77, "positive": ["6", 0], "negative": ["7", 0], "model": ["4", 0]},
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sdxl.safetensors"}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red barn", "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "ugly", "clip": ["4", 1]}},
}
UPSCALE = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}},
    "2": {"class_type": "ImageScale", "inputs": {"image": ["1", 0]}},
}


def scene(width=320, height=320, seed=0):
    """RGB uint8 pixels with smooth parts, texture and colour."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / (20 + 7 * c) + y / (30 - 5 * c)) for c in range(3)]
    out = 120 + 60 * np.stack(waves, -1) + rng.normal(0, 5, (height, width, 3))
    return np.clip(out, 0, 255).astype(np.uint8)


def png(texts=None, pixels=None, **options):
    info = PngInfo()
    for key, text in (texts or {}).items():
        info.add_itxt(key, text) if key == "XML:com.adobe.xmp" or not text.isascii() else info.add_text(key, text)
    return saved("PNG", pixels, pnginfo=info, **options)


def saved(form, pixels=None, **options):
    file = io.BytesIO()
    Image.fromarray(scene() if pixels is None else pixels).save(file, form, **options)
    return file.getvalue()


def exif(main=None, sub=None):
    made = Image.Exif()
    for tag, value in (main or {}).items():
        made[tag] = value
    if sub:
        made[0x8769] = dict(sub)
    return made.tobytes()


def user_comment(text):
    return b"UNICODE\x00" + text.encode("utf-16-be")


def xmp(body="", attributes=""):
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
        ' xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"'
        ' xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:TC260="http://www.tc260.org.cn/ns/AIGC/1.0/"'
        f" {attributes}>{body}</rdf:Description></rdf:RDF></x:xmpmeta>"
    )


def source_type(term, form="element"):
    if form == "attribute":
        return xmp(attributes=f'Iptc4xmpExt:DigitalSourceType="{term}"')
    if form == "resource":
        return xmp(f'<Iptc4xmpExt:DigitalSourceType rdf:resource="{term}"/>')
    return xmp(f"<Iptc4xmpExt:DigitalSourceType>{term}</Iptc4xmpExt:DigitalSourceType>")


def with_xmp(text, form="PNG", pixels=None):
    if form == "PNG":
        return png({"XML:com.adobe.xmp": text}, pixels)
    return saved(form, pixels, xmp=text.encode())


class Authority:
    """A root certificate and what it signs."""

    def __init__(self, name="Test Root"):
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = _name(name)
        start = _now() - datetime.timedelta(days=3000)
        self.certificate = (
            x509.CertificateBuilder(self.name, self.name, self.key.public_key(), x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + datetime.timedelta(days=9000))
            .add_extension(x509.BasicConstraints(True, None), True)
            .add_extension(_usage(sign=False), True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), False)
            .sign(self.key, hashes.SHA256())
        )

    @property
    def pem(self):
        from cryptography.hazmat.primitives.serialization import Encoding

        return self.certificate.public_bytes(Encoding.PEM)

    def signer(self, name="Acme", begins=-30, ends=365):
        """(private key, chain) in PEM of a new certificate that is valid between these days from now."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        key = ec.generate_private_key(ec.SECP256R1())
        made = (
            x509.CertificateBuilder(self.name, _name(name), key.public_key(), x509.random_serial_number())
            .not_valid_before(_now() + datetime.timedelta(days=begins))
            .not_valid_after(_now() + datetime.timedelta(days=ends))
            .add_extension(x509.BasicConstraints(False, None), True)
            .add_extension(_usage(sign=True), True)
            .add_extension(x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), False)
            .sign(self.key, hashes.SHA256())
        )
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return private, made.public_bytes(Encoding.PEM) + self.pem

    def sign(self, data, form="JPEG", source=GENERATED, action="c2pa.created", parent=None, **signer):
        """The file with a manifest that says `source` in one action, or that it was edited from `parent`."""
        import c2pa

        private, chain = self.signer(**signer)
        mime = f"image/{form.lower()}"
        actions = [{"action": action, "softwareAgent": {"name": "Acme Diffusion"}}] if action else []
        if source and actions:
            actions[0]["digitalSourceType"] = source
        manifest = {"claim_generator_info": [{"name": "Acme Paint", "version": "2.1"}], "title": "test"}
        if actions:
            manifest["assertions"] = [{"label": "c2pa.actions", "data": {"actions": actions}}]
        info = c2pa.C2paSignerInfo(b"es256", chain, private, None)
        out = io.BytesIO()
        with c2pa.Signer.from_info(info) as made, c2pa.Builder(json.dumps(manifest)) as builder:
            if parent is not None:
                builder.set_intent(c2pa.C2paBuilderIntent.EDIT)
                told = json.dumps({"title": "below", "relationship": "parentOf"})
                builder.add_ingredient(told, mime, io.BytesIO(parent))
            builder.sign(made, mime, io.BytesIO(data), out)
        return out.getvalue()


def _now():
    return datetime.datetime.now(datetime.UTC)


def _name(name):
    from cryptography import x509

    oid = x509.oid.NameOID
    return x509.Name(
        [x509.NameAttribute(oid.COMMON_NAME, name), x509.NameAttribute(oid.ORGANIZATION_NAME, f"{name} Inc")]
    )


def _usage(*, sign):
    from cryptography import x509

    return x509.KeyUsage(sign, False, False, False, False, not sign, not sign, False, False)
