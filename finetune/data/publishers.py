"""Where each public data set comes from: one record a set, and nothing else.

Sizes are of what is fetched, in bytes, for the progress bar; None where the publisher names none.
"""

from __future__ import annotations

from dataclasses import dataclass

from finetune.errors import UnknownNameError
from finetune.tasks import TASKS

PHYSIONET = "https://physionet.org/files"


@dataclass(frozen=True)
class Archive:
    """A zip file that is fetched whole, unpacked and removed."""

    path: str
    """Below the source's URL."""
    wanted: str
    """Regular expression: members whose name it finds are kept, under what it matched."""
    sha256: str | None = None
    """None: the publisher gives none. Then the hash of the first download is recorded beside the files,
    and what protects that download is the archive's own CRC of every member."""


@dataclass(frozen=True)
class Source:
    """One public data set as its publisher serves it."""

    name: str
    folder: str
    """In the data folder."""
    url: str
    """Base of all files; another one can be given to :func:`finetune.data.download.get_data`. Empty: there is
    nothing to fetch, the set is computed."""
    licence: str
    citation: str
    records: tuple[str, ...]
    """Glob patterns below the folder, each of which finds one file per record when the set is complete;
    ``x.zip!pattern`` looks in the folder ``x`` or, where there is none, among the members of the archive."""
    expected: int
    """Records of the complete set."""
    tables: tuple[tuple[str, ...], ...] = ()
    """Files without which no record can be used, such as labels: the places where each of them may lie,
    patterns as in ``records``."""
    size_bytes: int | None = None
    wanted: str = ""
    """Regular expression of the paths that are fetched from the publisher's ``SHA256SUMS.txt``."""
    archive: Archive | None = None
    """Instead of a list of files."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that read this set."""
        return tuple(task.name for task in TASKS.values() if task.dataset == self.folder)


SOURCES = {
    source.name: source
    for source in (
        Source(
            name="bidmc",
            folder="bidmc",
            url=f"{PHYSIONET}/bidmc/1.0.0/",
            licence="ODC-By 1.0",
            citation="Pimentel et al., IEEE TBME 64(8):1914-1923, 2016; Goldberger et al., Circulation, 2000",
            records=tuple(f"bidmc_csv/bidmc_??_{kind}.csv*" for kind in ("Signals", "Numerics", "Breaths")),
            expected=53,
            size_bytes=153_330_000,
            wanted=r"^bidmc_csv/.*\.(csv|txt)$|^(LICENSE|README|RECORDS)$",
        ),
        Source(
            name="ppg_dalia",
            folder="ppg_dalia",
            url="https://archive.ics.uci.edu/static/public/495/",
            licence="CC BY 4.0",
            citation="Reiss et al., Sensors 19(14):3079, 2019",
            records=("PPG_FieldStudy/S*/S*.pkl",),
            expected=15,
            archive=Archive("ppg+dalia.zip", r"PPG_FieldStudy/S\d+/S\d+\.pkl$"),
        ),
        Source(
            name="uci_bp",
            folder="uci_bp",
            url="https://springernature.figshare.com/ndownloader/files/",
            licence="CC BY 4.0",
            citation="González, Hsieh and Chen, Scientific Data 10:149, 2023; Kachuee et al., ISCAS, 2015",
            records=("uci2_dataset/signal_fold_?.mat",),
            expected=3,
            archive=Archive("38671886", r"uci2_dataset/signal_fold_\d\.mat$"),
        ),
        Source(
            name="uci_bp_raw",
            folder="uci_bp",
            url="https://archive.ics.uci.edu/static/public/340/",
            licence="CC BY 4.0",
            citation="Kachuee et al., ISCAS, 2015",
            records=("Part_?.mat",),
            expected=4,
            size_bytes=3_363_163_675,
            archive=Archive("cuff+less+blood+pressure+estimation.zip", r"Part_\d\.mat$"),
        ),
        Source(
            name="ptb-xl",
            folder="ptb-xl",
            url=f"{PHYSIONET}/ptb-xl/1.0.3/",
            licence="CC BY 4.0",
            citation="Wagner et al., Scientific Data 7:154, 2020; Goldberger et al., Circulation, 2000",
            records=("records100/*/*.dat", "records100/*/*.hea"),
            expected=21799,
            tables=(("ptbxl_database.csv",), ("scp_statements.csv",)),
            size_bytes=21799 * 24_500,
            wanted=r"^records100/|^(ptbxl_database|scp_statements)\.csv$|^LICENSE\.txt$",
        ),
        Source(
            name="physionet2017",
            folder="physionet2017",
            url=f"{PHYSIONET}/challenge-2017/1.0.0/",
            licence="ODC-By 1.0",
            citation="Clifford et al., Computing in Cardiology, 2017; Goldberger et al., Circulation, 2000",
            records=("training2017.zip!training2017/A*.mat", "training2017.zip!training2017/A*.hea"),
            expected=8528,
            tables=(("REFERENCE-v3.csv", "training2017.zip!training2017/REFERENCE-v3.csv"),),
            size_bytes=99_303_840,
            wanted=r"^(training2017\.zip|REFERENCE-v3\.csv)$",
        ),
        Source(
            name="csn",
            folder="csn",
            url=f"{PHYSIONET}/ecg-arrhythmia/1.0.0/",
            licence="CC BY 4.0",
            citation="Zheng et al., Scientific Data 7:48, 2020; Zheng et al., PhysioNet, 2022",
            records=("WFDBRecords/*/*/*.mat", "WFDBRecords/*/*/*.hea"),
            expected=45152,
            size_bytes=45152 * 120_900,
            wanted=r"^WFDBRecords/.*\.(mat|hea)$|^ConditionNames_SNOMED-CT\.csv$",
        ),
        Source(
            name="ppg_bp",
            folder="ppg_bp",
            url="https://figshare.com/ndownloader/files/",
            licence="CC BY 4.0",
            citation="Liang et al., Scientific Data 5:180020, 2018",
            records=tuple(f"Data File/0_subject/*_{piece}.txt" for piece in (1, 2, 3)),
            expected=219,
            tables=(("Data File/PPG-BP dataset.xlsx",),),
            archive=Archive("9441097", r"Data File/(?:0_subject/\d+_\d\.txt|PPG-BP dataset\.xlsx)$"),
        ),
        Source(
            name="wesad",
            folder="wesad",
            url="https://uni-siegen.sciebo.de/s/HGdUkoNlW1Ub0Gx/",
            licence="for academic research and other non-commercial purposes; see wesad_readme.pdf",
            citation="Schmidt et al., ICMI, 2018",
            records=("WESAD/S*/S*.pkl",),
            expected=15,
            size_bytes=2_249_444_501,
            archive=Archive("download", r"WESAD/S\d+/S\d+\.pkl$"),
        ),
        Source(
            name="ptb",
            folder="ptb",
            url=f"{PHYSIONET}/ptbdb/1.0.0/",
            licence="ODC-By 1.0",
            citation="Bousseljot et al., Biomed. Tech. 40(S1), 1995; Goldberger et al., Circulation, 2000",
            records=("patient*/s*.dat", "patient*/s*.hea"),
            expected=549,
            size_bytes=549 * 2_600_000,
            wanted=r"^patient\d+/s\w+\.(dat|hea)$",
        ),
        Source(
            name="cpsc2018",
            folder="cpsc2018",
            url=f"{PHYSIONET}/challenge-2020/1.0.2/",
            licence="CC BY 4.0",
            citation="Liu et al., JMIHI 8(7), 2018; Perez Alday et al., Physiological Measurement, 2020",
            records=("training/cpsc_2018/*/*.mat", "training/cpsc_2018/*/*.hea"),
            expected=6877,
            size_bytes=6877 * 190_000,
            wanted=r"^training/cpsc_2018/.*\.(mat|hea)$",
        ),
        Source(
            name="synthetic",
            folder="synthetic",
            url="",
            licence="none needed, computed here",
            citation="model: Tang et al., Scientific Reports 10:13883, 2020",
            records=(),
            expected=60,
        ),
    )
}


def find_source(name: str) -> Source:
    """Return the source of a data set, given its own name or that of a task that reads it.

    Raises :class:`UnknownNameError` with the nearest names.
    """
    wanted = TASKS[name].dataset if name in TASKS else name
    if wanted not in SOURCES:
        raise UnknownNameError.of("data set or task", name, {*SOURCES, *TASKS})
    return SOURCES[wanted]
