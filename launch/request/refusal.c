/* A refusal is written where the mistake is found and travels up as TSR_ERR_ARG, because the one
 * who reads a body does not know whether it came from a line of a file or from the terminal. */
#include "launch/request/refusal.h"

#include <stdarg.h>
#include <stdio.h>

enum { HTTP_BAD_REQUEST = 400 };

tsr_status tsr_refuse(tsr_refusal *ret_refusal, const char *code, const char *param,
                      const char *format, ...)
{
    *ret_refusal = (tsr_refusal){.code = code, .status = HTTP_BAD_REQUEST};
    (void)snprintf(ret_refusal->param, sizeof(ret_refusal->param), "%s",
                   param != NULL ? param : "");

    va_list args;
    va_start(args, format);
    (void)vsnprintf(ret_refusal->message, sizeof(ret_refusal->message), format, args);
    va_end(args);
    return TSR_ERR_ARG;
}
