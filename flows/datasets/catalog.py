"""Catalog of the supported data sets: content, terms and how to get them.

Only data sets with a DOI and an open license can be fetched (`datasets.py`). The owners distribute
the others under their own terms; they are never part of this project.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Dataset:
    """Description of a data set.

    Attributes
    ----------
    put
        What to pass to `affectgap intake`.
    preset
        Name of a params file for the data set.
    doi, files
        Source of a data set that can be fetched.
    """

    name: str
    adapter: str
    content: str
    citation: str
    licence: str
    obtain: str
    put: str = ""
    preset: str | None = None
    doi: str | None = None
    files: tuple[str, ...] = ()


_OWN = (
    Dataset(
        name="drawn",
        adapter="drawn",
        content="faces drawn from parameters: a demonstration, not evidence about children",
        citation="affectgap, the stage draw",
        licence="Apache-2.0",
        obtain="`affectgap run` draws it",
        preset="drawn",
    ),
    Dataset(
        name="folder",
        adapter="folder",
        content="your own pictures: one folder per class, optionally with labels.csv",
        citation="yours",
        licence="yours",
        obtain="`affectgap intake PATH --dataset NAME`",
        preset="folder",
    ),
    Dataset(
        name="london",
        adapter="london",
        content="102 adults, neutral and smiling, with age, gender and ethnicity as they report",
        citation=(
            "L. DeBruine, B. Jones (2017): Face Research Lab London Set. figshare. "
            "https://doi.org/10.6084/m9.figshare.5047666"
        ),
        licence="CC BY 4.0",
        obtain="`affectgap datasets fetch london` (about 90 MB)",
        preset="london",
        doi="10.6084/m9.figshare.5047666.v5",
        files=("london_faces_info.csv", "neutral_front.zip", "smiling_front.zip"),
    ),
)

_CHILDREN = (
    Dataset(
        name="cafe",
        adapter="cafe",
        content="154 children of 2 to 8 years, posed, seven emotions, mouth open or closed",
        citation=(
            "V. LoBue, C. Thrasher (2015): The Child Affective Facial Expression (CAFE) set. "
            "Frontiers in Psychology 5:1532. https://doi.org/10.3389/fpsyg.2014.01532"
        ),
        licence="researchers authorized by Databrary; the pictures must not be published",
        obtain="register with Databrary, volume 30 (https://doi.org/10.17910/B7301K)",
        put="the folder of pictures, with the spreadsheet of ages (.xlsx or .csv) in it if you can",
        preset="cafe-nimh",
    ),
    Dataset(
        name="nimh-chefs",
        adapter="nimh-chefs",
        content="59 children and adolescents of 10 to 17 years, posed, five emotions, two gazes",
        citation=(
            "H. L. Egger et al. (2011): The NIMH Child Emotional Faces Picture Set. Int. J. "
            "Methods Psychiatr. Res. 20(3):145-156. https://doi.org/10.1002/mpr.343"
        ),
        licence="research only, on request",
        obtain="ask the authors of the paper",
        put="the folder of pictures, flat or in folders such as Afraid_direct",
        preset="cafe-nimh",
    ),
    Dataset(
        name="ddcf",
        adapter="ddcf",
        content="80 children of 6 to 16 years, posed, eight expressions, five views, ages recorded",
        citation=(
            "K. A. Dalrymple, J. Gomez, B. Duchaine (2013): The Dartmouth Database of Children's "
            "Faces. PLoS ONE 8(11):e79131. https://doi.org/10.1371/journal.pone.0079131"
        ),
        licence="research only, on request",
        obtain="ask the authors of the paper",
        put="the folder of pictures",
    ),
    Dataset(
        name="defss",
        adapter="defss",
        content="116 people of 8 to 30 years, posed, five emotions, ages recorded",
        citation=(
            "A. S. Meuwissen, J. E. Anderson, P. D. Zelazo (2017): The creation and validation of "
            "the Developmental Emotional Faces Stimulus Set. Behavior Research Methods 49:960-966. "
            "https://doi.org/10.3758/s13428-016-0756-7"
        ),
        licence="research only, on request",
        obtain="see the paper for how to request it",
        put="the folder of pictures",
    ),
    Dataset(
        name="liris-cse",
        adapter="liris-cse",
        content="12 children, spontaneous, frames of video clips, six emotions",
        citation=(
            "R. A. Khan, A. Crenn, A. Meyer, S. Bouakaz (2019): A novel database of children's "
            "spontaneous facial expressions (LIRIS-CSE). Image and Vision Computing 83-84:61-69. "
            "https://doi.org/10.1016/j.imavis.2019.02.004"
        ),
        licence="research only, on request",
        obtain="https://childrenfacialexpression.projet.liris.cnrs.fr/",
        put="the folder of frames, with a table participants.csv (subject, age, gender) in it",
    ),
)

_ADULTS = (
    Dataset(
        name="rafd",
        adapter="rafd",
        content="57 adults and 10 children, posed, eight emotions, three gazes, five views",
        citation=(
            "O. Langner et al. (2010): Presentation and validation of the Radboud Faces Database. "
            "Cognition & Emotion 24(8):1377-1388. https://doi.org/10.1080/02699930903485076"
        ),
        licence="non-commercial research, on request",
        obtain="https://rafd.socsci.ru.nl/",
        put="the folder of pictures",
    ),
    Dataset(
        name="kdef",
        adapter="kdef",
        content="70 adults of 20 to 30 years, posed, seven emotions, five views, two sessions",
        citation=(
            "D. Lundqvist, A. Flykt, A. Öhman (1998): The Karolinska Directed Emotional Faces "
            "(KDEF). Karolinska Institutet, ISBN 91-630-7164-9"
        ),
        licence="non-commercial research",
        obtain="https://kdef.se/",
        put="the folder KDEF (one folder per person)",
    ),
    Dataset(
        name="jaffe",
        adapter="jaffe",
        content="10 Japanese women, posed, seven emotions, grayscale",
        citation=(
            "M. Lyons, S. Akamatsu, M. Kamachi, J. Gyoba (1998): Coding facial expressions with "
            "Gabor wavelets. FG 1998:200-205. https://doi.org/10.1109/AFGR.1998.670949"
        ),
        licence="non-commercial research, on request",
        obtain="https://doi.org/10.5281/zenodo.3451524",
        put="the folder of pictures",
    ),
    Dataset(
        name="faces",
        adapter="faces",
        content="171 adults, young, middle-aged and older, posed, six emotions",
        citation=(
            "N. C. Ebner, M. Riediger, U. Lindenberger (2010): FACES: a database of facial "
            "expressions in young, middle-aged, and older women and men. Behavior Research Methods "
            "42:351-362. https://doi.org/10.3758/BRM.42.1.351"
        ),
        licence="research only, on request",
        obtain="https://faces.mpdl.mpg.de/",
        put="the folder of pictures",
    ),
    Dataset(
        name="ck-plus",
        adapter="ck-plus",
        content="123 adults of 18 to 50 years, sequences from neutral to the peak, eight labels",
        citation=(
            "P. Lucey et al. (2010): The Extended Cohn-Kanade Dataset (CK+). CVPR Workshops "
            "2010:94-101. https://doi.org/10.1109/CVPRW.2010.5543262"
        ),
        licence="non-commercial research, on request",
        obtain="ask the Affect Analysis Group, University of Pittsburgh",
        put="the folder that holds the sequences of pictures and the folder Emotion",
    ),
)

_WILD = (
    Dataset(
        name="six-emotions",
        adapter="six-emotions",
        content="1,200 pictures, one folder per class, including pain; subjects unknown",
        citation="'6 Emotions for image classification', Kaggle",
        licence="see its page; the sources of its pictures are not documented",
        obtain="from Kaggle, under its title",
        put="the folder that holds anger, disgust, fear, happy, pain and sad",
        preset="six-emotions",
    ),
    Dataset(
        name="raf-db",
        adapter="raf-db",
        content=(
            "15,339 pictures from the web, seven emotions, age class, gender, "
            "ethnicity (the set calls it race)"
        ),
        citation=(
            "S. Li, W. Deng, J. Du (2017): Reliable crowdsourcing and deep locality-preserving "
            "learning for expression recognition in the wild. CVPR 2017:2584-2593. "
            "https://doi.org/10.1109/CVPR.2017.277"
        ),
        licence="non-commercial research, on request",
        obtain="http://www.whdeld.cn/RAF/model1.html",
        put="the folder basic (Image, EmoLabel, Annotation)",
    ),
    Dataset(
        name="affectnet",
        adapter="affectnet",
        content="about 440,000 labeled pictures from the web, eight emotions",
        citation=(
            "A. Mollahosseini, B. Hasani, M. H. Mahoor (2019): AffectNet: a database for facial "
            "expression, valence, and arousal computing in the wild. IEEE Trans. Affective "
            "Computing 10(1):18-31. https://doi.org/10.1109/TAFFC.2017.2740923"
        ),
        licence="research only, on request",
        obtain="http://mohammadmahoor.com/affectnet/",
        put="the folder that holds the pictures and training.csv, validation.csv (or annotations)",
    ),
    Dataset(
        name="fer2013",
        adapter="fer2013",
        content="35,887 small grayscale pictures from the web, seven emotions; also FER+ labels",
        citation=(
            "I. J. Goodfellow et al. (2013): Challenges in representation learning. "
            "https://arxiv.org/abs/1307.0414; FER+: E. Barsoum et al. (2016), "
            "https://arxiv.org/abs/1608.01041"
        ),
        licence="see its page on Kaggle; FER+ labels as in github.com/microsoft/FERPlus",
        obtain="from Kaggle: fer2013.csv or icml_face_data.csv; fer2013new.csv from FERPlus",
        put="the folder with the CSV (intake writes the pictures), and fer2013new.csv for FER+",
    ),
)

_DEMOGRAPHICS = (
    Dataset(
        name="fairface",
        adapter="fairface",
        content=(
            "108,501 pictures with age group, gender and ethnicity (the set calls it race); no "
            "emotions, to be counted only"
        ),
        citation=(
            "K. Kärkkäinen, J. Joo (2021): FairFace: face attribute dataset for balanced race, "
            "gender, and age for bias measurement and mitigation. WACV 2021:1548-1558"
        ),
        licence="CC BY 4.0",
        obtain="https://github.com/joojs/fairface",
    ),
    Dataset(
        name="utkface",
        adapter="utkface",
        content=(
            "23,708 pictures with age, gender and ethnicity (the set calls it race); no emotions, "
            "to be counted only"
        ),
        citation=(
            "Z. Zhang, Y. Song, H. Qi (2017): Age progression/regression by conditional "
            "adversarial autoencoder. CVPR 2017:4352-4360. https://doi.org/10.1109/CVPR.2017.463"
        ),
        licence="non-commercial research",
        obtain="https://susanqq.github.io/UTKFace/",
    ),
)

DATASETS: Mapping[str, Dataset] = {
    dataset.name: dataset for dataset in (*_OWN, *_CHILDREN, *_ADULTS, *_WILD, *_DEMOGRAPHICS)
}
