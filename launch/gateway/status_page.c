/* The page at /: one file that fetches nothing but this server's own numbers. */
#include "launch/gateway/gateway_parts.h"

#include <string.h>

enum { OK_STATUS = 200 };

/* status_page.html, put into the program by its build. */
extern const char tsr_status_page[];
extern const size_t tsr_status_page_bytes;

void tsr_serve_page(tsr_gateway *gateway, tsr_http_exchange *exchange)
{
    (void)gateway;
    tsr_http_answer(
        exchange,
        &(tsr_http_reply){.status = OK_STATUS,
                          .type = "text/html; charset=utf-8",
                          .headers = "Cache-Control: no-cache\r\n"
                                     "Content-Security-Policy: default-src 'none'; style-src "
                                     "'unsafe-inline'; script-src 'unsafe-inline'; connect-src "
                                     "'self'; img-src data:\r\n",

                          .bytes = tsr_status_page,
                          .count = tsr_status_page_bytes});
}
