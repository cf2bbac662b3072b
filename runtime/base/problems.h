/*
 * What is wrong with an input, collected before it is said: `inspect` lists everything, `run` stops
 * there and prints the first of them. Each text is one whole line: which file, tensor or
 * field; what is wrong; what to do.
 */
#ifndef TSR_RUNTIME_BASE_PROBLEMS_H
#define TSR_RUNTIME_BASE_PROBLEMS_H

#include <stdbool.h>
#include <stddef.h>

typedef enum tsr_severity {
    TSR_SEVERITY_NOTE,    /* legal, worth saying */
    TSR_SEVERITY_WARNING, /* served, but the files disagree with each other */
    TSR_SEVERITY_ERROR,   /* refused */
} tsr_severity;

typedef struct tsr_problem {
    tsr_severity severity;
    char *text; /* owned by the list */
} tsr_problem;

/* Zero-initialise; close with tsr_problems_close. Keeps the first 1000 and counts the rest. */
typedef struct tsr_problems {
    tsr_problem *items; /* [count] */
    size_t count;
    size_t dropped;
    size_t errors;
} tsr_problems;

__attribute__((format(printf, 3, 4))) void
tsr_problems_add(tsr_problems *problems, tsr_severity severity, const char *format, ...);

bool tsr_problems_has_error(const tsr_problems *problems);

/* Writes problems to the log, the errors alone where there are some: the first few, since a model
 * has ten thousands of tensors and one cause shows in many of them, and how many more there are. */
void tsr_problems_log(const tsr_problems *problems);

void tsr_problems_close(tsr_problems *problems);

#endif
