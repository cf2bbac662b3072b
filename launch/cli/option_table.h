/* One row per option; config.c parses by it and writes --help from it. */
#ifndef TSR_LAUNCH_CLI_OPTION_TABLE_H
#define TSR_LAUNCH_CLI_OPTION_TABLE_H

#include <stddef.h>
#include <stdint.h>

typedef enum tsr_option_kind {
    TSR_OPTION_FLAG,    /* bool */
    TSR_OPTION_TEXT,    /* const char * */
    TSR_OPTION_CHOICE,  /* const char *, one of `choices` */
    TSR_OPTION_INTEGER, /* int64_t; 25.6k and 32K are understood */
    TSR_OPTION_SIZE,    /* int64_t bytes; 24G and 24GiB are understood */
    TSR_OPTION_NUMBER,  /* double */
    TSR_OPTION_LIST,    /* tsr_option_list, may be repeated */
} tsr_option_kind;

typedef struct tsr_option_row {
    const char *name;
    unsigned commands; /* tsr_command bits that take it */
    tsr_option_kind kind;
    size_t offset; /* into tsr_config */
    double low;    /* INTEGER, SIZE, NUMBER: legal range */
    double high;
    const char *value;   /* what --help calls the value */
    const char *preset;  /* default as text, parsed like a given value; NULL: none */
    const char *choices; /* CHOICE: "a|b|c"; NULL where another table has them */
    const char *help;
} tsr_option_row;

extern const tsr_option_row tsr_option_rows[];
extern const size_t tsr_option_count;

enum { TSR_CHOICES_BYTES = 128 };

/* "a|b|c", for an option named by a row; "" where it has no choices. */
const char *tsr_option_choices(const char *name, char text[TSR_CHOICES_BYTES]);

#endif
