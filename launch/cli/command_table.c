/* The table of commands. */
#include "launch/cli/command_table.h"

#include <string.h>

const tsr_command_row tsr_command_rows[] = {
    {"inspect", TSR_COMMAND_INSPECT, "DIR", "inspect DIR [--json] [--html FILE]",
     "what a checkpoint holds: shapes, the precision of every layer, problems",
     "tessera inspect models/Qwen3-30B-A3B-NVFP4"},
    {"plan", TSR_COMMAND_PLAN, "DIR", "plan DIR --ranks N [--target TARGET|BYTES] [--json]",
     "whether it fits, per rank and kind of memory, and how each layer is computed",
     "tessera plan models/GLM-4.6-mixed --ranks 8 --target h200 --max-model-len 32K"},
    {"run", TSR_COMMAND_RUN, "DIR",
     "run DIR [--prompt TEXT | --chat TEXT | --input FILE.jsonl --output FILE.jsonl]",
     "generate: one prompt to the terminal, or a file of requests",
     "mpirun -n 4 tessera run models/demo --chat 'What is 12 + 30?'"},
    {"score", TSR_COMMAND_SCORE, "DIR", "score DIR --tokens FILE --out FILE.safetensors",
     "the logits of every position of given token sequences",
     "mpirun -n 8 tessera score models/demo --tokens tokens.json --out logits.safetensors"},
    {"bench", TSR_COMMAND_BENCH, "DIR|comm|serve",
     "bench DIR | comm | serve [--url URL] | --shape NAME [--precision MAP] [--json]",
     "tokens per second, bytes moved, and how near that is to what the memory gives",
     "tessera bench --shape qwen3-30b-a3b --precision experts=nvfp4,fp8 --batch 1,8,32"},
    {"doctor", TSR_COMMAND_DOCTOR, NULL, "doctor [--expect-world-size N] [--json]",
     "what the machines of a job have, what passes between its ranks, what is wrong and what mends "
     "it",
     "mpirun -n 4 tessera doctor --expect-world-size 4"},
    {"serve", TSR_COMMAND_SERVE, "DIR",
     "serve DIR [--host ADDRESS] [--port N] [--ranks N [--hostfile FILE]]",
     "an HTTP server that OpenAI's clients speak to; starts and watches over its ranks itself, or "
     "is started by mpirun",
     "tessera serve models/demo --ranks 4 --port 8000"},
    {"chat", TSR_COMMAND_CHAT, "DIR", "chat [--url URL] | DIR [--ranks N] [--prompt TEXT]",
     "questions and answers at a terminal, with an OpenAI server or one that it starts for DIR; "
     "/help lists what it understands",
     "tessera chat models/demo --ranks 4"},
};

const size_t tsr_command_count = sizeof(tsr_command_rows) / sizeof(tsr_command_rows[0]);

const tsr_printed_row tsr_printed_rows[] = {
    {"help", offsetof(tsr_config, help)},
    {"--help", offsetof(tsr_config, help)},
    {"-h", offsetof(tsr_config, help)},
    {"version", offsetof(tsr_config, version)},
    {"--version", offsetof(tsr_config, version)},
    {"manual", offsetof(tsr_config, manual)},
    {"completion", offsetof(tsr_config, completion)},
};

const size_t tsr_printed_count = sizeof(tsr_printed_rows) / sizeof(tsr_printed_rows[0]);

const tsr_command_row *tsr_command_find(const char *name)
{
    for (size_t i = 0; i < tsr_command_count; i++) {
        if (strcmp(tsr_command_rows[i].name, name) == 0)
            return &tsr_command_rows[i];
    }
    return NULL;
}
