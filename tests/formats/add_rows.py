"""All that a new weight format takes, done to copies of the sources: the list below is the whole of it.

    add_rows.py ROOT INTO      writes every file named here, with its lines added, below INTO

Beside these lines a format is one kernel file of each backend (i8_group.c) and its mention among the sources of that
backend's library. Everything else is compiled from ROOT as it stands, and sees the copies in front of the originals.
"""

import pathlib
import sys

# file, the line that is there today, what is put behind it
ADDED = [
    # Its name.
    ("runtime/base/format.h", "typedef enum tsr_weight_format {", """
    TSR_WEIGHT_I8_GROUP, /* i8 [out, in] * scales[o, i/32] f32 */"""),
    # Its row.
    ("runtime/base/format.c", "static const tsr_format_row formats[TSR_WEIGHT_FORMAT_COUNT] = {", """
    [TSR_WEIGHT_I8_GROUP] = {.name = "i8-group",
                             .looks_like = "I8 in groups of 32",
                             .weight_dtype = TSR_DTYPE_I8,
                             .weight_bits = 8,
                             .scales = TSR_SCALES_GRID,
                             .scale_dtype = TSR_DTYPE_F32,
                             .scale_rows = 1,
                             .scale_columns = 32},"""),
    # What declares it.
    ("proto/plan.h", "    TSR_ALGO_NVFP4_AWQ,", """
    TSR_ALGO_W8A16_I8,"""),
    ("runtime/plan/algos.c", "static const tsr_algo_row rows[TSR_ALGO_COUNT] = {", """
    [TSR_ALGO_W8A16_I8] = {.name = "W8A16_I8", .format = TSR_WEIGHT_I8_GROUP, .group_size = 32},"""),
    # Its row in the table of the one backend.
    ("kernels/cpu/format/format_cpu.h", "extern const tsr_cpu_format ISA(tsr_cpu_format_nvfp4);", """
extern const tsr_cpu_format ISA(tsr_cpu_format_i8_group);"""),
    ("kernels/cpu/format/format_table.c",
     "const tsr_cpu_format *const ISA(tsr_cpu_formats)[TSR_WEIGHT_FORMAT_COUNT] = {", """
    [TSR_WEIGHT_I8_GROUP] = &ISA(tsr_cpu_format_i8_group),"""),
]


def main():
    root, into = (pathlib.Path(a) for a in sys.argv[1:])
    for name, line, added in ADDED:
        text = (root / name).read_text()
        if text.count(line + "\n") != 1:
            sys.exit(f"add_rows.py: {name} does not have the line '{line}' once: where do formats go now?")
        target = into / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text.replace(line + "\n", line + added + "\n"))


if __name__ == "__main__":
    main()
