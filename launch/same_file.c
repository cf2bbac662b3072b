/* By device and inode: a link, or another spelling of the path, is the same file. */
#include "launch/same_file.h"

#include <sys/stat.h>

bool tsr_same_file(const char *a, const char *b)
{
    struct stat of_a;
    struct stat of_b;

    return stat(a, &of_a) == 0 && stat(b, &of_b) == 0 && S_ISREG(of_a.st_mode) &&
           of_a.st_dev == of_b.st_dev && of_a.st_ino == of_b.st_ino;
}
