/*
 * What the kernel itself charges for a container: all namespaces, an overlay as root filesystem, pivot_root, /proc,
 * exec, wait. floor LOWER UPPER WORK PROGRAM
 *
 * And for an exec: the cgroups and namespaces of a container's process, fork, exec, wait. floor exec PID PROGRAM
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <linux/sched.h>
#include <unistd.h>

static void need(long result, const char *what)
{
	if (result < 0) {
		perror(what);
		_exit(125);
	}
}

static int ended(pid_t pid)
{
	int status;

	need(waitpid(pid, &status, 0), "waitpid");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/*
 * Enters the cgroups of version 1, whose `tasks` are entered without a wait, and opens the one of version 2: a process is
 * made in it, which does not wait either. Each line is NUMBER:CONTROLLERS:PATH; version 2 has no controllers.
 */
static int cgroups(const char *pid)
{
	char line[4096], path[8300];
	int version2 = -1;
	FILE *list;

	snprintf(path, sizeof(path), "/proc/%s/cgroup", pid);
	list = fopen(path, "re");
	need(list ? 0 : -1, path);
	while (fgets(line, sizeof(line), list)) {
		char *name = strchr(line, ':'), *place = name ? strchr(name + 1, ':') : NULL;
		int file;

		if (!place)
			continue;
		*name++ = *place++ = 0;
		place[strcspn(place, "\n")] = 0;
		if (!*name) {
			snprintf(path, sizeof(path), "/sys/fs/cgroup/unified%s", place);
			version2 = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
			if (version2 < 0) {
				snprintf(path, sizeof(path), "/sys/fs/cgroup%s", place);
				version2 = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
			}
			continue;
		}
		if (!strncmp(name, "name=", 5))
			name += 5;
		snprintf(path, sizeof(path), "/sys/fs/cgroup/%s%s/tasks", name, place);
		file = open(path, O_WRONLY | O_CLOEXEC);
		need(file, path);
		need(write(file, "0", 1), path);
		close(file);
	}
	fclose(list);
	return version2;
}

static int exec_into(const char *target, char *program)
{
	struct clone_args args;
	int pidfd, version2;
	pid_t pid;

	version2 = cgroups(target);
	pidfd = syscall(SYS_pidfd_open, atoi(target), 0);
	need(pidfd, "pidfd_open");
	need(setns(pidfd, CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP), "setns");
	memset(&args, 0, sizeof(args));
	args.exit_signal = SIGCHLD;
	if (version2 >= 0) {
		args.flags = CLONE_INTO_CGROUP;
		args.cgroup = version2;
	}
	pid = syscall(SYS_clone3, &args, sizeof(args));
	need(pid, "clone3");
	if (pid == 0) {
		execl(program, program, (char *)NULL);
		need(-1, program);
	}
	return ended(pid);
}

int main(int argc, char **argv)
{
	struct clone_args args;
	char options[4096];
	pid_t pid;

	if (argc == 4 && !strcmp(argv[1], "exec"))
		return exec_into(argv[2], argv[3]);
	if (argc != 5) {
		fprintf(stderr, "usage: floor LOWER UPPER WORK PROGRAM, or floor exec PID PROGRAM\n");
		return 2;
	}
	memset(&args, 0, sizeof(args));
	args.flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;
	args.exit_signal = SIGCHLD;
	pid = syscall(SYS_clone3, &args, sizeof(args));
	need(pid, "clone3");
	if (pid == 0) {
		snprintf(options, sizeof(options), "lowerdir=%s,upperdir=%s,workdir=%s", argv[1], argv[2], argv[3]);
		need(mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL), "mount /");
		need(mount("overlay", argv[2], "overlay", 0, options), "mount overlay");
		need(chdir(argv[2]), "chdir");
		need(syscall(SYS_pivot_root, ".", "."), "pivot_root");
		need(umount2(".", MNT_DETACH), "umount");
		need(mount("proc", "/proc", "proc", MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL), "mount /proc");
		execl(argv[4], argv[4], (char *)NULL);
		need(-1, argv[4]);
	}
	return ended(pid);
}
