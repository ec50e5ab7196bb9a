/*
 * A stand-in for VMware's library, for tests of the vddk reader against nbdkit's own plugin: the same calls, the same
 * refusals, and the bytes of a file that the test names. It asks the test over the unix socket in
 * DISKFERRY_VDDK_STAND_IN whether a connection may be made and where a disk's bytes are.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

typedef uint64_t VixError;
enum { VIX_OK = 0, VIX_E_FAIL = 1, VIX_E_NOT_SUPPORTED = 6, VIX_ASYNC = 25000, SECTOR = 512, READ_ONLY = 4 };

/* The parameters of a connection as VDDK 6.5 to 8 lay them out, up to the last member that is read here. */
struct connect_params {
  char *vmx_spec;
  char *server;
  char *thumbprint;
  long reserved1;
  int credential_type;
  struct {
    char *user;
    char *password;
    char *key;
  } uid;
  uint32_t port;
  uint32_t nfc_port;
  char rest[256];
};

struct info {
  uint32_t bios_geometry[3];
  uint32_t physical_geometry[3];
  uint64_t capacity;
  int adapter;
  int links;
  char *parent;
  char *uuid;
  uint32_t logical_sector;
  uint32_t physical_sector;
};

struct connection {
  struct connect_params params;
  char *snapshot;
  char *transports;
};

struct disk {
  int fd;
  uint64_t size;
};

typedef void log_function (const char *format, va_list args);

static char last_error[512] = "Unknown error";

static VixError
fail (const char *text)
{
  snprintf (last_error, sizeof last_error, "%s", text);
  return VIX_E_FAIL;
}

/* Asks the test one thing. The answer is "ok WHAT" or "error TEXT". */
static VixError
ask (const char *question, char *answer, size_t length)
{
  const char *path = getenv ("DISKFERRY_VDDK_STAND_IN");
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  char line[2048];
  size_t got = 0;
  ssize_t n;
  int fd;

  if (path == NULL)
    return fail ("DISKFERRY_VDDK_STAND_IN is not set");
  snprintf (address.sun_path, sizeof address.sun_path, "%s", path);
  fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd == -1 || connect (fd, (struct sockaddr *) &address, sizeof address) == -1) {
    if (fd != -1)
      close (fd);
    return fail ("Cannot connect to the host");
  }
  if (write (fd, question, strlen (question)) == -1)
    got = 0;
  while (got < sizeof line - 1 && (n = read (fd, line + got, sizeof line - 1 - got)) > 0)
    got += n;
  close (fd);
  line[got] = '\0';
  line[strcspn (line, "\n")] = '\0';
  if (strncmp (line, "ok ", 3) == 0) {
    snprintf (answer, length, "%s", line + 3);
    return VIX_OK;
  }
  return fail (strncmp (line, "error ", 6) == 0 ? line + 6 : "The server gave no answer");
}

VixError
VixDiskLib_InitEx (uint32_t major, uint32_t minor, log_function *log, log_function *warn, log_function *panic,
                   const char *library, const char *config)
{
  (void) minor, (void) log, (void) warn, (void) panic, (void) library, (void) config;
  return major >= 6 ? VIX_OK : fail ("This version of the library is not supported");
}

void
VixDiskLib_Exit (void)
{
}

char *
VixDiskLib_GetErrorText (VixError error, const char *unused)
{
  (void) unused;
  return strdup (error == VIX_E_NOT_SUPPORTED ? "The operation is not supported" : last_error);
}

void
VixDiskLib_FreeErrorText (char *text)
{
  free (text);
}

struct connect_params *
VixDiskLib_AllocateConnectParams (void)
{
  return calloc (1, sizeof (struct connect_params));
}

void
VixDiskLib_FreeConnectParams (struct connect_params *params)
{
  free (params);
}

static const char *
or_none (const char *text)
{
  return text == NULL ? "" : text;
}

VixError
VixDiskLib_ConnectEx (const struct connect_params *params, char read_only, const char *snapshot, const char *transports,
                      void **result)
{
  char question[2048], answer[64];
  struct connection *made;

  if (!read_only)
    return fail ("The stand-in is only read");
  snprintf (question, sizeof question, "connect\tserver=%s\tport=%u\tuser=%s\tpassword=%s\tthumbprint=%s\tvm=%s\tsnapshot=%s\ttransports=%s\n",
            or_none (params->server), params->port, or_none (params->uid.user), or_none (params->uid.password),
            or_none (params->thumbprint), or_none (params->vmx_spec), or_none (snapshot), or_none (transports));
  if (ask (question, answer, sizeof answer) != VIX_OK)
    return VIX_E_FAIL;
  made = calloc (1, sizeof *made);
  made->params = *params;
  made->params.vmx_spec = strdup (or_none (params->vmx_spec));
  made->snapshot = strdup (or_none (snapshot));
  made->transports = strdup (or_none (transports));
  *result = made;
  return VIX_OK;
}

VixError
VixDiskLib_Disconnect (struct connection *connection)
{
  free (connection->params.vmx_spec);
  free (connection->snapshot);
  free (connection->transports);
  free (connection);
  return VIX_OK;
}

VixError
VixDiskLib_Open (struct connection *connection, const char *path, uint32_t flags, void **result)
{
  char question[2048], file[1024];
  struct disk *disk;
  struct stat status;

  if ((flags & READ_ONLY) == 0)
    return fail ("The stand-in is only read");
  snprintf (question, sizeof question, "open\tvm=%s\tsnapshot=%s\tfile=%s\n", connection->params.vmx_spec, connection->snapshot, path);
  if (ask (question, file, sizeof file) != VIX_OK)
    return VIX_E_FAIL;
  disk = calloc (1, sizeof *disk);
  disk->fd = open (file, O_RDONLY | O_CLOEXEC);
  if (disk->fd == -1 || fstat (disk->fd, &status) == -1)
    return fail ("A file was not found");
  disk->size = status.st_size;
  *result = disk;
  return VIX_OK;
}

VixError
VixDiskLib_Close (struct disk *disk)
{
  close (disk->fd);
  free (disk);
  return VIX_OK;
}

const char *
VixDiskLib_GetTransportMode (struct disk *disk)
{
  (void) disk;
  return "nbdssl";
}

VixError
VixDiskLib_GetInfo (struct disk *disk, struct info **result)
{
  struct info *info = calloc (1, sizeof *info);

  info->capacity = disk->size / SECTOR;
  info->logical_sector = info->physical_sector = SECTOR;
  *result = info;
  return VIX_OK;
}

void
VixDiskLib_FreeInfo (struct info *info)
{
  free (info);
}

/* Not to be called by its public name from here: the plugin has a variable of that name, which would be found first. */
static VixError
read_sectors (struct disk *disk, uint64_t sector, uint64_t count, unsigned char *into)
{
  size_t length = count * SECTOR, done = 0;

  while (done < length) {
    ssize_t n = pread (disk->fd, into + done, length - done, sector * SECTOR + done);
    if (n <= 0)
      return fail ("An input/output error occurred");
    done += n;
  }
  return VIX_OK;
}

VixError
VixDiskLib_Read (struct disk *disk, uint64_t sector, uint64_t count, unsigned char *into)
{
  return read_sectors (disk, sector, count, into);
}

VixError
VixDiskLib_ReadAsync (struct disk *disk, uint64_t sector, uint64_t count, unsigned char *into,
                      void (*done) (void *, VixError), void *data)
{
  done (data, read_sectors (disk, sector, count, into));
  return VIX_ASYNC;
}

VixError
VixDiskLib_Wait (struct disk *disk)
{
  (void) disk;
  return VIX_OK;
}

VixError
VixDiskLib_Write (struct disk *disk, uint64_t sector, uint64_t count, const unsigned char *data)
{
  (void) disk, (void) sector, (void) count, (void) data;
  return VIX_E_NOT_SUPPORTED;
}

VixError
VixDiskLib_WriteAsync (struct disk *disk, uint64_t sector, uint64_t count, const unsigned char *data,
                       void (*done) (void *, VixError), void *user)
{
  (void) disk, (void) sector, (void) count, (void) data, (void) done, (void) user;
  return VIX_E_NOT_SUPPORTED;
}

VixError
VixDiskLib_Create (struct connection *connection, const char *path, const void *parameters, void *progress, void *data)
{
  (void) connection, (void) path, (void) parameters, (void) progress, (void) data;
  return VIX_E_NOT_SUPPORTED;
}

VixError
VixDiskLib_Flush (struct disk *disk)
{
  (void) disk;
  return VIX_OK;
}
