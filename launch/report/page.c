/* Dark on light, one column, tables that read without their colours. */
#include "launch/report/page.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE_BYTES = 1024 };

static const char *const style =
    "body{margin:2rem auto;max-width:76rem;padding:0 1.5rem;background:#fff;color:#1c2430;"
    "font:15px/1.5 system-ui,'DejaVu Sans',sans-serif}"
    "h1{font-size:1.6rem;margin:0}h2{font-size:1.15rem;margin:2.2rem 0 .6rem;"
    "border-bottom:1px solid #d5dbe3;padding-bottom:.25rem}"
    "p{margin:.4rem 0;max-width:60rem}.about,.note{color:#566273}.note{font-size:.88rem}"
    "table{border-collapse:collapse;font-size:.88rem}"
    "th{font-weight:600;color:#566273;text-align:left;padding:.15rem .7rem .15rem 0}"
    "td{padding:.15rem .7rem .15rem 0;font-variant-numeric:tabular-nums}"
    "td.n,th.n{text-align:right}"
    ".map td,.map th,.heat td,.heat th{padding:0}"
    ".map .c{width:1.9rem;height:1.25rem;text-align:center;border:1px solid #fff;"
    "font:600 .8rem/1.2 'DejaVu Sans Mono',monospace}"
    ".map th{text-align:center;font-weight:500}.map .l{text-align:right;padding-right:.6rem}"
    ".map .g{padding:0 .5rem}.map td.gap,.map th.gap{width:.9rem}"
    ".legend .c{width:1.9rem;text-align:center;font:600 .8rem/1.2 'DejaVu Sans Mono',monospace;"
    "padding:.15rem}.legend td{padding-left:.7rem}"
    ".heat .most{padding-left:.7rem;color:#566273}.heat "
    ".l{text-align:right;padding-right:.6rem;color:#566273}"
    ".heat .h{width:1.15rem;height:1.15rem;border:1px solid #fff}"
    ".pairs th{text-align:center;font-weight:500}.pairs .w{min-width:3.2rem;height:1.5rem;"
    "padding:0 .4rem;border:1px solid #fff;text-align:right}"
    ".scroll{overflow-x:auto}"
    ".bar{display:inline-block;height:.75rem;background:#3b6ea8;vertical-align:middle}"
    ".bad{color:#9b1c1c;font-weight:600}.good{color:#1b6b36;font-weight:600}"
    ".a0{background:#e6e9ee}.a1{background:#a9cdf0}.a2{background:#9fdbe0}.a3{background:#c3bdf0}"
    ".a4{background:#dcc3ee}.a5{background:#a8dba8}.a6{background:#e9dc8f}.a7{background:#cbe08a}"
    ".wrong{background:#e2574c;color:#fff}.mixed{background:#f5b971}"
    "@media print{body{margin:0;max-width:none}}";

void tsr_page_add(tsr_page *page, const char *format, ...)
{
    char piece[PIECE_BYTES];
    va_list args;

    va_start(args, format);
    const int bytes = vsnprintf(piece, sizeof(piece), format, args);
    va_end(args);
    if (page->status == TSR_OK && (bytes < 0 || (size_t)bytes >= sizeof(piece)))
        page->status = TSR_ERR_INTERNAL;
    if (page->status == TSR_OK)
        page->status = tsr_text_add(page->text, piece, (size_t)bytes);
}

void tsr_page_text(tsr_page *page, const char *text)
{
    static const struct {
        char of;
        const char *as;
    } escapes[] = {{'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'"', "&quot;"}, {'\'', "&#39;"}};

    while (*text != '\0' && page->status == TSR_OK) {
        const size_t plain = strcspn(text, "&<>\"'");
        page->status = tsr_text_add(page->text, text, plain);
        text += plain;
        for (size_t i = 0; *text != '\0' && i < sizeof(escapes) / sizeof(escapes[0]); i++) {
            if (*text != escapes[i].of)
                continue;
            tsr_page_add(page, "%s", escapes[i].as);
            text++;
            break;
        }
    }
}

void tsr_page_begin(tsr_page *page, const char *title, const char *about)
{
    tsr_page_add(page, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
                       "<meta name=\"viewport\" content=\"width=device-width\">\n<title>");
    tsr_page_text(page, title);
    tsr_page_add(page, "</title>\n<style>");
    if (page->status == TSR_OK)
        page->status = tsr_text_add_string(page->text, style);
    tsr_page_add(page, "</style></head>\n<body>\n<h1>");
    tsr_page_text(page, title);
    tsr_page_add(page, "</h1>\n<p class=\"about\">");
    tsr_page_text(page, about);
    tsr_page_add(page, "</p>\n");
}

void tsr_page_end(tsr_page *page)
{
    tsr_page_add(page, "<p class=\"note\">tessera %s</p>\n</body></html>\n", TSR_VERSION);
}
