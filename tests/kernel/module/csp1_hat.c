// SPDX-License-Identifier: GPL-2.0-only
/*
 * csp1_hat - a whole P1 current-sensor HAT without hardware.
 *
 * csp1d uses real kernel subsystems: an IIO device, a
 * GPIO chip, three LEDs and a serial port, all children of the platform device
 * "csp1_hat". Only the hardware is simulated: a test puts the scans in
 * and moves the request line through debugfs, and reads back when each LED
 * switched and when each byte left the wire, in CLOCK_MONOTONIC nanoseconds.
 *
 * /sys/kernel/debug/csp1_hat/:
 *   {adc,gpio,leds,tty}_plugged   rw  1/0: the part comes and goes (before Linux
 *                                     6.9 the GPIO chip only comes: EBUSY)
 *   adc_type                      rw  scan type of the channels, "le:s16/16>>0"
 *   adc_triggered                 rw  1: needs an IIO trigger; 0: own data-ready
 *   adc_scale, adc_offset         rw  one value or one a channel; "none": no such
 *                                     attribute
 *   adc_separate                  rw  1: scale and offset are per channel files
 *   adc_push                      w   whole scans, put into the buffer unchanged
 *   adc_enabled, adc_enabled_ns   r   whether the buffer is enabled (0: not), and since when
 *   adc_scan_bytes                r   size of a scan as enabled now
 *   adc_dropped                   r   scans that a full buffer refused
 *   adc_errno                     rw  not 0: attributes of the ADC and enabling its
 *                                     buffer fail with this errno
 *   line                          rw  physical level of P1_REQUEST
 *   line_storm                    rw  "HALF_PERIOD_US EDGES"; reads edges to go
 *   line_log                      rw  struct hat_record, value = the new level
 *   leds_log                      rw  struct hat_record, value = brightness << 32
 *                                     | LED (0 power, 1 current, 2 p1)
 *   tty_log                       rw  struct hat_record, value = the byte
 *   tty_stuck                     rw  1: the wire is blocked
 *   tty_adapter                   rw  1: like a USB adapter, a flush does nothing,
 *                                     and the 128 bytes that leave next count as
 *                                     left: neither TIOCOUTQ nor close() sees them
 * Settings of a part are written before it is plugged (EBUSY
 * afterwards). Writing anything to a log clears it. The *_plugged module parameters
 * say which parts exist at the start. A trigger attached to the ADC holds a
 * reference on the module: unplug the ADC before rmmod.
 *
 * Modelled on drivers/iio/dummy/iio_simple_dummy_buffer.c, kernel/irq/irq_sim.c
 * with drivers/gpio/gpio-sim.c, drivers/leds/uleds.c and
 * drivers/tty/serial/serial_core.c. For Linux 6.1 and later.
 */
#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/gpio/driver.h>
#include <linux/hrtimer.h>
#include <linux/interrupt.h>
#include <linux/kfifo.h>
#include <linux/leds.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/platform_device.h>
#include <linux/serial.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/tty.h>
#include <linux/tty_driver.h>
#include <linux/tty_flip.h>
#include <linux/uaccess.h>
#include <linux/version.h>
#include <linux/vmalloc.h>

#include <linux/iio/buffer.h>
#include <linux/iio/buffer_impl.h>
#include <linux/iio/iio.h>
#include <linux/iio/kfifo_buf.h>
#include <linux/iio/trigger.h>
#include <linux/iio/trigger_consumer.h>
#include <linux/iio/triggered_buffer.h>

static struct platform_device *hat_device;
static struct dentry *hat_dir;
/* Serialises plugging, and with it every setting that plugging reads. */
static DEFINE_MUTEX(hat_plug_lock);

static bool hat_is_leaving;	/* the module, for good */

/* ---- logs: records in the order they happened, read like a growing file ---- */

struct hat_record {
	u64 ns;		/* CLOCK_MONOTONIC */
	u64 value;
};

struct hat_log {
	spinlock_t lock;
	struct hat_record *records;
	size_t size;
	size_t count;
};

/* A full log takes no more: readers see that from its size. */
static struct hat_log leds_log = { .size = 1 << 16 };
static struct hat_log line_log = { .size = 1 << 18 };
static struct hat_log tty_log = { .size = 1 << 20 };

static int hat_log_init(struct hat_log *log)
{
	spin_lock_init(&log->lock);
	log->records = vzalloc(array_size(log->size, sizeof(*log->records)));
	return log->records ? 0 : -ENOMEM;
}

static void hat_log_add(struct hat_log *log, u64 ns, u64 value)
{
	unsigned long flags;

	spin_lock_irqsave(&log->lock, flags);
	if (log->count < log->size) {
		log->records[log->count].ns = ns;
		log->records[log->count].value = value;
		/* The reader takes no lock: the record comes before its count. */
		smp_store_release(&log->count, log->count + 1);
	}
	spin_unlock_irqrestore(&log->lock, flags);
}

static ssize_t hat_log_read(struct file *file, char __user *buf, size_t len, loff_t *pos)
{
	struct hat_log *log = file->private_data;
	size_t count = smp_load_acquire(&log->count);

	return simple_read_from_buffer(buf, len, pos, log->records, count * sizeof(*log->records));
}

static ssize_t hat_log_write(struct file *file, const char __user *buf, size_t len, loff_t *pos)
{
	struct hat_log *log = file->private_data;
	unsigned long flags;

	spin_lock_irqsave(&log->lock, flags);
	log->count = 0;
	spin_unlock_irqrestore(&log->lock, flags);
	return len;
}

static const struct file_operations hat_log_fops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.read = hat_log_read,
	.write = hat_log_write,
	.llseek = default_llseek,
};

/* ---- ADC ---- */

#define ADC_CHANNELS 4

struct adc_value {
	int integer;
	int nano;
};

static struct iio_dev *adc;		/* NULL: unplugged */
static struct iio_trigger *adc_trigger;
static u32 adc_triggered;
static u32 adc_separate;
static struct adc_value adc_rate = { 4000, 0 };
static u64 adc_dropped;
static u32 adc_errno;		/* of a converter that no longer responds on its bus */

static struct {
	char endian, sign;
	unsigned int realbits, storagebits, shift;
} adc_type = { 'l', 's', 16, 16, 0 };

static struct adc_setting {
	bool absent;
	struct adc_value values[ADC_CHANNELS];
} adc_scale = {
	.values = { [0 ... ADC_CHANNELS - 1] = { 0, 50354003 } },	/* 3300 mV / 65536 */
}, adc_offset;

/* Keeps the buffer's state still while scans are pushed. */
static DEFINE_MUTEX(adc_lock);
static u64 adc_enabled_ns;		/* 0: disabled */
static unsigned long adc_enables;	/* number of times enabled */

struct adc_private {
	struct iio_chan_spec channels[ADC_CHANNELS + 1];
};

static int adc_read_raw(struct iio_dev *indio_dev, struct iio_chan_spec const *chan,
			int *val, int *val2, long mask)
{
	const struct adc_value *value;

	if (READ_ONCE(adc_errno))
		return -READ_ONCE(adc_errno);
	switch (mask) {
	case IIO_CHAN_INFO_SCALE:
		value = &adc_scale.values[chan->channel];
		break;
	case IIO_CHAN_INFO_OFFSET:
		value = &adc_offset.values[chan->channel];
		break;
	case IIO_CHAN_INFO_SAMP_FREQ:
		value = &adc_rate;
		break;
	default:
		return -EINVAL;
	}
	*val = value->integer;
	*val2 = value->nano;
	return *val2 ? IIO_VAL_INT_PLUS_NANO : IIO_VAL_INT;
}

static int adc_write_raw(struct iio_dev *indio_dev, struct iio_chan_spec const *chan,
			 int val, int val2, long mask)
{
	int ret;

	if (READ_ONCE(adc_errno))
		return -READ_ONCE(adc_errno);
	if (mask != IIO_CHAN_INFO_SAMP_FREQ || val < 0 || val2 < 0 || (!val && !val2))
		return -EINVAL;
	/* Like most real drivers: EBUSY while the buffer is on. */
	ret = iio_device_claim_direct_mode(indio_dev);
	if (ret)
		return ret;
	adc_rate.integer = val;
	adc_rate.nano = val2;
	iio_device_release_direct_mode(indio_dev);
	return 0;
}

static int adc_write_raw_get_fmt(struct iio_dev *indio_dev, struct iio_chan_spec const *chan,
				 long mask)
{
	return IIO_VAL_INT_PLUS_NANO;
}

static const struct iio_info adc_info = {
	.read_raw = adc_read_raw,
	.write_raw = adc_write_raw,
	.write_raw_get_fmt = adc_write_raw_get_fmt,
};

static int adc_preenable(struct iio_dev *indio_dev)
{
	return -READ_ONCE(adc_errno);
}

static int adc_postenable(struct iio_dev *indio_dev)
{
	mutex_lock(&adc_lock);
	adc_enabled_ns = ktime_get_ns();
	adc_enables++;
	mutex_unlock(&adc_lock);
	return 0;
}

static int adc_predisable(struct iio_dev *indio_dev)
{
	mutex_lock(&adc_lock);
	adc_enabled_ns = 0;
	mutex_unlock(&adc_lock);
	return 0;
}

static const struct iio_buffer_setup_ops adc_setup_ops = {
	.preenable = adc_preenable,
	.postenable = adc_postenable,
	.predisable = adc_predisable,
};

/*
 * A trigger's tick brings no data here: done at once, in hard context, so that
 * a fast hrtimer trigger costs next to nothing. The thread is never woken, but
 * a oneshot interrupt, which the core asks for, needs one.
 */
static irqreturn_t adc_tick(int irq, void *p)
{
	struct iio_poll_func *pf = p;

	iio_trigger_notify_done(pf->indio_dev->trig);
	return IRQ_HANDLED;
}

static irqreturn_t adc_tick_thread(int irq, void *p)
{
	return IRQ_HANDLED;
}

static void adc_fill_channels(struct iio_chan_spec *channels)
{
	long shared = 0;
	int i;

	if (!adc_scale.absent)
		shared |= BIT(IIO_CHAN_INFO_SCALE);
	if (!adc_offset.absent)
		shared |= BIT(IIO_CHAN_INFO_OFFSET);

	for (i = 0; i < ADC_CHANNELS; i++) {
		channels[i] = (struct iio_chan_spec) {
			.type = IIO_VOLTAGE,
			.indexed = 1,
			.channel = i,
			.scan_index = i,
			.scan_type = {
				.sign = adc_type.sign,
				.realbits = adc_type.realbits,
				.storagebits = adc_type.storagebits,
				.shift = adc_type.shift,
				.endianness = adc_type.endian == 'b' ? IIO_BE : IIO_LE,
			},
			.info_mask_separate = adc_separate ? shared : 0,
			.info_mask_shared_by_type = adc_separate ? 0 : shared,
			.info_mask_shared_by_all = BIT(IIO_CHAN_INFO_SAMP_FREQ),
		};
	}
	channels[ADC_CHANNELS] =
		(struct iio_chan_spec)IIO_CHAN_SOFT_TIMESTAMP(ADC_CHANNELS);
}

static int adc_setup_buffer(struct iio_dev *indio_dev)
{
	struct iio_buffer *buffer;
	int ret;

	if (adc_triggered)
		return iio_triggered_buffer_setup(indio_dev, adc_tick, adc_tick_thread,
						  &adc_setup_ops);
	/* What devm_iio_kfifo_buffer_setup() does, without tying it to a driver's life. */
	buffer = iio_kfifo_allocate();
	if (!buffer)
		return -ENOMEM;
	indio_dev->modes |= INDIO_BUFFER_SOFTWARE;
	indio_dev->setup_ops = &adc_setup_ops;
	ret = iio_device_attach_buffer(indio_dev, buffer);
	if (ret)
		iio_kfifo_free(buffer);
	return ret;
}

static void adc_cleanup_buffer(struct iio_dev *indio_dev)
{
	if (indio_dev->modes & INDIO_BUFFER_TRIGGERED)
		iio_triggered_buffer_cleanup(indio_dev);
	else
		iio_kfifo_free(indio_dev->buffer);
}

static int adc_plug(void)
{
	struct iio_dev *indio_dev;
	struct adc_private *private;
	int ret;

	/* A new device each time: a reader may still hold the old one. */
	indio_dev = iio_device_alloc(&hat_device->dev, sizeof(*private));
	if (!indio_dev)
		return -ENOMEM;
	private = iio_priv(indio_dev);
	adc_fill_channels(private->channels);
	indio_dev->name = "csp1-hat-adc";
	indio_dev->label = "csp1-hat";
	indio_dev->info = &adc_info;
	indio_dev->modes = INDIO_DIRECT_MODE;
	indio_dev->channels = private->channels;
	indio_dev->num_channels = ARRAY_SIZE(private->channels);
	ret = adc_setup_buffer(indio_dev);
	if (ret)
		goto err_free;
	ret = iio_device_register(indio_dev);
	if (ret)
		goto err_buffer;
	adc = indio_dev;
	return 0;

err_buffer:
	adc_cleanup_buffer(indio_dev);
err_free:
	iio_device_free(indio_dev);
	return ret;
}

static int adc_unplug(void)
{
	struct iio_dev *indio_dev = adc;

	/*
	 * A read() on an enabled buffer that is under way when the core takes the
	 * device down follows a null pointer (indio_dev->info in iio_buffer_ready()).
	 * A disabled buffer does not go there: disable it and let such reads pass, so
	 * that no test ends in an oops which is not its subject.
	 */
	if (iio_buffer_enabled(indio_dev)) {
		iio_update_buffers(indio_dev, NULL, indio_dev->buffer);
		msleep(50);
	}
	iio_device_unregister(indio_dev);
	mutex_lock(&adc_lock);
	adc = NULL;
	mutex_unlock(&adc_lock);
	adc_cleanup_buffer(indio_dev);
	iio_device_free(indio_dev);
	return 0;
}

static int adc_push_open(struct inode *inode, struct file *file)
{
	/*
	 * An open file speaks for one enabling of the buffer only, so that scans
	 * made for one layout never land in the next.
	 */
	file->private_data = (void *)READ_ONCE(adc_enables);
	return nonseekable_open(inode, file);
}

static ssize_t adc_push_write(struct file *file, const char __user *buf, size_t len, loff_t *pos)
{
	size_t done, scan_bytes;
	ssize_t ret = len;
	u8 *data;

	if (!len || len > SZ_16M)
		return -EINVAL;
	data = vmemdup_user(buf, len);
	if (IS_ERR(data))
		return PTR_ERR(data);

	mutex_lock(&adc_lock);
	if (!adc) {
		ret = -ENODEV;
	} else if (!adc_enabled_ns || (unsigned long)file->private_data != adc_enables) {
		ret = -EAGAIN;
	} else {
		scan_bytes = adc->scan_bytes;
		if (len % scan_bytes)
			ret = -EINVAL;
		for (done = 0; ret > 0 && done < len; done += scan_bytes)
			if (iio_push_to_buffers(adc, data + done))
				adc_dropped++;
	}
	mutex_unlock(&adc_lock);
	kvfree(data);
	return ret;
}

static const struct file_operations adc_push_fops = {
	.owner = THIS_MODULE,
	.open = adc_push_open,
	.write = adc_push_write,
};

static int adc_enabled_get(void *data, u64 *value)
{
	*value = !!READ_ONCE(adc_enabled_ns);
	return 0;
}
DEFINE_SIMPLE_ATTRIBUTE(adc_enabled_fops, adc_enabled_get, NULL, "%llu\n");

static int adc_enabled_ns_get(void *data, u64 *value)
{
	*value = READ_ONCE(adc_enabled_ns);
	return 0;
}
DEFINE_SIMPLE_ATTRIBUTE(adc_enabled_ns_fops, adc_enabled_ns_get, NULL, "%llu\n");

static int adc_dropped_get(void *data, u64 *value)
{
	*value = READ_ONCE(adc_dropped);
	return 0;
}
DEFINE_SIMPLE_ATTRIBUTE(adc_dropped_fops, adc_dropped_get, NULL, "%llu\n");

static int adc_errno_get(void *data, u64 *value)
{
	*value = READ_ONCE(adc_errno);
	return 0;
}

static int adc_errno_set(void *data, u64 value)
{
	if (value > MAX_ERRNO)
		return -EINVAL;
	WRITE_ONCE(adc_errno, value);
	return 0;
}
DEFINE_SIMPLE_ATTRIBUTE(adc_errno_fops, adc_errno_get, adc_errno_set, "%llu\n");

static int adc_scan_bytes_get(void *data, u64 *value)
{
	mutex_lock(&adc_lock);
	*value = adc && adc_enabled_ns ? adc->scan_bytes : 0;
	mutex_unlock(&adc_lock);
	return 0;
}
DEFINE_SIMPLE_ATTRIBUTE(adc_scan_bytes_fops, adc_scan_bytes_get, NULL, "%llu\n");

static int adc_flag_get(void *data, u64 *value)
{
	*value = *(u32 *)data;
	return 0;
}

static int adc_flag_set(void *data, u64 value)
{
	int ret = 0;

	if (value > 1)
		return -EINVAL;
	mutex_lock(&hat_plug_lock);
	if (adc)
		ret = -EBUSY;
	else
		*(u32 *)data = value;
	mutex_unlock(&hat_plug_lock);
	return ret;
}
DEFINE_SIMPLE_ATTRIBUTE(adc_flag_fops, adc_flag_get, adc_flag_set, "%llu\n");

/* Text settings: a line in, the same line out. */
static int hat_get_line(char *line, size_t size, const char __user *buf, size_t len)
{
	if (len >= size)
		return -EINVAL;
	if (copy_from_user(line, buf, len))
		return -EFAULT;
	line[len] = '\0';
	return 0;
}

static ssize_t adc_type_read(struct file *file, char __user *buf, size_t len, loff_t *pos)
{
	char line[32];
	int n;

	n = scnprintf(line, sizeof(line), "%ce:%c%u/%u>>%u\n", adc_type.endian, adc_type.sign,
		      adc_type.realbits, adc_type.storagebits, adc_type.shift);
	return simple_read_from_buffer(buf, len, pos, line, n);
}

static ssize_t adc_type_write(struct file *file, const char __user *buf, size_t len, loff_t *pos)
{
	unsigned int real, storage, shift;
	char line[32], endian, sign;
	int ret;

	ret = hat_get_line(line, sizeof(line), buf, len);
	if (ret)
		return ret;
	if (sscanf(line, "%ce:%c%u/%u>>%u", &endian, &sign, &real, &storage, &shift) != 5 ||
	    (endian != 'l' && endian != 'b') || (sign != 's' && sign != 'u') ||
	    (storage != 8 && storage != 16 && storage != 32 && storage != 64) ||
	    !real || real > storage || shift > storage - real)
		return -EINVAL;

	mutex_lock(&hat_plug_lock);
	if (adc) {
		ret = -EBUSY;
	} else {
		adc_type.endian = endian;
		adc_type.sign = sign;
		adc_type.realbits = real;
		adc_type.storagebits = storage;
		adc_type.shift = shift;
	}
	mutex_unlock(&hat_plug_lock);
	return ret ?: len;
}

static const struct file_operations adc_type_fops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.read = adc_type_read,
	.write = adc_type_write,
};

static ssize_t adc_setting_read(struct file *file, char __user *buf, size_t len, loff_t *pos)
{
	const struct adc_setting *setting = file->private_data;
	const struct adc_value *value;
	char line[128];
	int i, n = 0;

	if (setting->absent)
		n = scnprintf(line, sizeof(line), "none");
	for (i = 0; !setting->absent && i < ADC_CHANNELS; i++) {
		value = &setting->values[i];
		n += scnprintf(line + n, sizeof(line) - n, "%s%s%d.%09u", i ? " " : "",
			       value->nano < 0 ? "-" : "", value->integer, abs(value->nano));
	}
	n += scnprintf(line + n, sizeof(line) - n, "\n");
	return simple_read_from_buffer(buf, len, pos, line, n);
}

static ssize_t adc_setting_write(struct file *file, const char __user *buf, size_t len,
				 loff_t *pos)
{
	struct adc_setting setting = { }, *target = file->private_data;
	char line[128], *rest, *word;
	int ret, i, n = 0;

	ret = hat_get_line(line, sizeof(line), buf, len);
	if (ret)
		return ret;
	rest = strim(line);
	if (!strcmp(rest, "none")) {
		setting.absent = true;
		rest = NULL;
	}
	while ((word = strsep(&rest, " "))) {
		if (n == ADC_CHANNELS)
			return -EINVAL;
		ret = iio_str_to_fixpoint(word, 100000000, &setting.values[n].integer,
					  &setting.values[n].nano);
		if (ret)
			return ret;
		n++;
	}
	if (!setting.absent && n != 1 && n != ADC_CHANNELS)
		return -EINVAL;
	for (i = n; n == 1 && i < ADC_CHANNELS; i++)
		setting.values[i] = setting.values[0];

	mutex_lock(&hat_plug_lock);
	if (adc)
		ret = -EBUSY;
	else
		*target = setting;
	mutex_unlock(&hat_plug_lock);
	return ret ?: len;
}

static const struct file_operations adc_setting_fops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.read = adc_setting_read,
	.write = adc_setting_write,
};

static int adc_init(void)
{
	int ret;

	adc_trigger = iio_trigger_alloc(&hat_device->dev, "csp1-hat-trigger");
	if (!adc_trigger)
		return -ENOMEM;
	ret = iio_trigger_register(adc_trigger);
	if (ret) {
		iio_trigger_free(adc_trigger);
		return ret;
	}

	debugfs_create_file("adc_push", 0200, hat_dir, NULL, &adc_push_fops);
	debugfs_create_file("adc_type", 0600, hat_dir, NULL, &adc_type_fops);
	debugfs_create_file("adc_triggered", 0600, hat_dir, &adc_triggered, &adc_flag_fops);
	debugfs_create_file("adc_separate", 0600, hat_dir, &adc_separate, &adc_flag_fops);
	debugfs_create_file("adc_scale", 0600, hat_dir, &adc_scale, &adc_setting_fops);
	debugfs_create_file("adc_offset", 0600, hat_dir, &adc_offset, &adc_setting_fops);
	debugfs_create_file("adc_enabled", 0400, hat_dir, NULL, &adc_enabled_fops);
	debugfs_create_file("adc_enabled_ns", 0400, hat_dir, NULL, &adc_enabled_ns_fops);
	debugfs_create_file("adc_dropped", 0400, hat_dir, NULL, &adc_dropped_fops);
	debugfs_create_file("adc_errno", 0600, hat_dir, NULL, &adc_errno_fops);
	debugfs_create_file("adc_scan_bytes", 0400, hat_dir, NULL, &adc_scan_bytes_fops);
	return 0;
}

static void adc_exit(void)
{
	iio_trigger_unregister(adc_trigger);
	iio_trigger_free(adc_trigger);
}

/* ---- request line: line 0 of a chip of inputs, with edges ---- */

static const char * const line_names[] = { "P1_REQUEST", NULL, NULL, NULL };

static struct gpio_chip line_chip;
static DEFINE_SPINLOCK(line_lock);
static bool line_level;
static unsigned int line_irq_type;
static bool line_irq_on;
static struct hrtimer line_storm_timer;
static ktime_t line_storm_period;
static unsigned int line_storm_edges;

static int line_get_direction(struct gpio_chip *gc, unsigned int offset)
{
	return GPIO_LINE_DIRECTION_IN;
}

static int line_direction_input(struct gpio_chip *gc, unsigned int offset)
{
	return 0;
}

static int line_get(struct gpio_chip *gc, unsigned int offset)
{
	return !offset && READ_ONCE(line_level);
}

static void line_irq_mask(struct irq_data *data)
{
	if (!irqd_to_hwirq(data))
		WRITE_ONCE(line_irq_on, false);
	gpiochip_disable_irq(irq_data_get_irq_chip_data(data), irqd_to_hwirq(data));
}

static void line_irq_unmask(struct irq_data *data)
{
	gpiochip_enable_irq(irq_data_get_irq_chip_data(data), irqd_to_hwirq(data));
	if (!irqd_to_hwirq(data))
		WRITE_ONCE(line_irq_on, true);
}

static int line_irq_set_type(struct irq_data *data, unsigned int type)
{
	if (type & ~IRQ_TYPE_EDGE_BOTH)
		return -EINVAL;
	if (!irqd_to_hwirq(data))
		WRITE_ONCE(line_irq_type, type);
	return 0;
}

static const struct irq_chip line_irq_chip = {
	.name = "csp1-hat",
	.irq_mask = line_irq_mask,
	.irq_unmask = line_irq_unmask,
	.irq_set_type = line_irq_set_type,
	.flags = IRQCHIP_IMMUTABLE,
	GPIOCHIP_IRQ_RESOURCE_HELPERS,
};

/* Callers keep the chip from being removed meanwhile. */
static void line_set(bool level)
{
	unsigned long flags;
	bool changed;

	spin_lock_irqsave(&line_lock, flags);
	changed = line_level != level;
	WRITE_ONCE(line_level, level);
	if (changed)
		hat_log_add(&line_log, ktime_get_ns(), level);
	spin_unlock_irqrestore(&line_lock, flags);

	/* An edge while masked is lost, as on a chip without a latch. */
	if (changed && READ_ONCE(line_irq_on) &&
	    READ_ONCE(line_irq_type) & (level ? IRQ_TYPE_EDGE_RISING : IRQ_TYPE_EDGE_FALLING))
		generic_handle_domain_irq_safe(line_chip.irq.domain, 0);
}

static enum hrtimer_restart line_storm_tick(struct hrtimer *timer)
{
	line_set(!line_level);
	WRITE_ONCE(line_storm_edges, line_storm_edges - 1);
	if (!line_storm_edges)
		return HRTIMER_NORESTART;
	hrtimer_forward_now(timer, line_storm_period);
	return HRTIMER_RESTART;
}

static int gpio_plug(void)
{
	struct gpio_irq_chip *girq;

	memset(&line_chip, 0, sizeof(line_chip));
	line_chip.label = "csp1-hat";
	line_chip.parent = &hat_device->dev;
	line_chip.owner = THIS_MODULE;
	line_chip.base = -1;
	line_chip.ngpio = ARRAY_SIZE(line_names);
	line_chip.names = line_names;
	line_chip.get_direction = line_get_direction;
	line_chip.direction_input = line_direction_input;
	line_chip.get = line_get;
	girq = &line_chip.irq;
	gpio_irq_chip_set_chip(girq, &line_irq_chip);
	girq->default_type = IRQ_TYPE_NONE;
	girq->handler = handle_simple_irq;
	return gpiochip_add_data(&line_chip, NULL);
}

static int gpio_unplug(void)
{
	/*
	 * Kernels before 6.9 crash: they free the interrupt of a line in
	 * use, and the next chip that is added trips over one that left while its
	 * character device was open (gpio_name_to_desc()). Newer ones take a line
	 * from its user, but warn when it is just being requested or released.
	 */
	if (LINUX_VERSION_CODE < KERNEL_VERSION(6, 9, 0) && !hat_is_leaving)
		return -EBUSY;
	hrtimer_cancel(&line_storm_timer);
	WRITE_ONCE(line_storm_edges, 0);
	gpiochip_remove(&line_chip);
	WRITE_ONCE(line_irq_on, false);
	return 0;
}

static int line_level_get(void *data, u64 *value)
{
	*value = READ_ONCE(line_level);
	return 0;
}

static int line_level_set(void *data, u64 value)
{
	if (value > 1)
		return -EINVAL;
	mutex_lock(&hat_plug_lock);
	line_set(value);
	mutex_unlock(&hat_plug_lock);
	return 0;
}
DEFINE_SIMPLE_ATTRIBUTE(line_level_fops, line_level_get, line_level_set, "%llu\n");

static ssize_t line_storm_read(struct file *file, char __user *buf, size_t len, loff_t *pos)
{
	char line[16];
	int n = scnprintf(line, sizeof(line), "%u\n", READ_ONCE(line_storm_edges));

	return simple_read_from_buffer(buf, len, pos, line, n);
}

static ssize_t line_storm_write(struct file *file, const char __user *buf, size_t len, loff_t *pos)
{
	unsigned int half_period_us, edges;
	char line[32];
	int ret;

	ret = hat_get_line(line, sizeof(line), buf, len);
	if (ret)
		return ret;
	if (sscanf(line, "%u %u", &half_period_us, &edges) != 2 || !half_period_us)
		return -EINVAL;
	mutex_lock(&hat_plug_lock);
	hrtimer_cancel(&line_storm_timer);
	WRITE_ONCE(line_storm_edges, edges);
	line_storm_period = ns_to_ktime((u64)half_period_us * NSEC_PER_USEC);
	if (edges)
		hrtimer_start(&line_storm_timer, line_storm_period, HRTIMER_MODE_REL_HARD);
	mutex_unlock(&hat_plug_lock);
	return len;
}

static const struct file_operations line_storm_fops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.read = line_storm_read,
	.write = line_storm_write,
};

static void hat_timer_init(struct hrtimer *timer, enum hrtimer_restart (*function)(struct hrtimer *))
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 13, 0)
	hrtimer_setup(timer, function, CLOCK_MONOTONIC, HRTIMER_MODE_REL_HARD);
#else
	hrtimer_init(timer, CLOCK_MONOTONIC, HRTIMER_MODE_REL_HARD);
	timer->function = function;
#endif
}

static void line_init(void)
{
	hat_timer_init(&line_storm_timer, line_storm_tick);
	debugfs_create_file("line", 0600, hat_dir, NULL, &line_level_fops);
	debugfs_create_file("line_storm", 0600, hat_dir, NULL, &line_storm_fops);
}

static void line_exit(void)
{
	hrtimer_cancel(&line_storm_timer);
}

/* ---- LEDs ---- */

static const char * const led_names[] = {
	"csp1:yellow:power", "csp1:yellow:current", "csp1:yellow:p1",
};

static struct led_classdev leds[ARRAY_SIZE(led_names)];
static bool led_lit[ARRAY_SIZE(led_names)];
static DEFINE_SPINLOCK(led_lock);

static void led_switch(unsigned int led, bool lit)
{
	unsigned long flags;

	/* One lock for state and time: the log's order is the order of events. */
	spin_lock_irqsave(&led_lock, flags);
	if (led_lit[led] != lit) {
		led_lit[led] = lit;
		hat_log_add(&leds_log, ktime_get_ns(), (u64)lit << 32 | led);
	}
	spin_unlock_irqrestore(&led_lock, flags);
}

static void led_brightness_set(struct led_classdev *led, enum led_brightness brightness)
{
	led_switch(led - leds, brightness);
}

static int leds_unplug_from(int n)
{
	while (n--) {
		/*
		 * The core takes the trigger off first and the files away last: a
		 * trigger written in between would stay in its list for ever.
		 */
		mutex_lock(&leds[n].led_access);
		led_sysfs_disable(&leds[n]);
		mutex_unlock(&leds[n].led_access);
		led_classdev_unregister(&leds[n]);
		/* An LED without a board is off; the core has switched off most already. */
		led_switch(n, false);
	}
	return 0;
}

static int leds_unplug(void)
{
	return leds_unplug_from(ARRAY_SIZE(leds));
}

static int leds_plug(void)
{
	int i, ret;

	memset(leds, 0, sizeof(leds));
	for (i = 0; i < ARRAY_SIZE(leds); i++) {
		leds[i].name = led_names[i];
		leds[i].max_brightness = 1;
		leds[i].brightness_set = led_brightness_set;
		leds[i].brightness = !i;	/* the power LED: default-state = "on" */
		led_switch(i, !i);
		ret = led_classdev_register(&hat_device->dev, &leds[i]);
		if (ret) {
			leds_unplug_from(i);
			return ret;
		}
	}
	return 0;
}

/* ---- serial port: takes 4096 bytes, lets them go at the line's speed ---- */

#define TTY_TICK (1 * NSEC_PER_MSEC)
#define TTY_WAKEUP_CHARS 256	/* as in serial_core.h */
#define TTY_ADAPTER_CHARS 128	/* as the FIFO of an FT232B */

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 6, 0)
typedef ssize_t tty_written_t;
typedef size_t tty_count_t;
#else
typedef int tty_written_t;
typedef int tty_count_t;
#endif

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0)
typedef bool tty_carrier_t;
#else
typedef int tty_carrier_t;
#endif

static struct tty_driver *wire_driver;
static struct tty_port wire_port;
static DEFINE_SPINLOCK(wire_lock);
static DEFINE_KFIFO(wire_fifo, u8, 4096);
static struct hrtimer wire_timer;
static bool wire_ticking;
static bool wire_stuck;
static bool wire_adapter;
static bool wire_plugged;
static u64 wire_byte_ns = 86806;
static u64 wire_free_ns;	/* when the last byte had left the wire */

/*
 * Let go what is due by now. A byte has left when its stop bit is over; until
 * then it counts as waiting, and a flush takes it back: there is no hardware
 * FIFO behind this buffer.
 */
static void wire_drain(void)
{
	u64 now = ktime_get_ns();
	u8 byte;

	lockdep_assert_held(&wire_lock);
	while (!wire_stuck && wire_free_ns + wire_byte_ns <= now && kfifo_get(&wire_fifo, &byte)) {
		wire_free_ns += wire_byte_ns;
		hat_log_add(&tty_log, wire_free_ns, byte);
	}
}

static void wire_start(void)
{
	lockdep_assert_held(&wire_lock);
	if (wire_ticking || wire_stuck || kfifo_is_empty(&wire_fifo))
		return;
	wire_ticking = true;
	hrtimer_start(&wire_timer, TTY_TICK, HRTIMER_MODE_REL_HARD);
}

static enum hrtimer_restart wire_tick(struct hrtimer *timer)
{
	unsigned long flags;
	bool wakeup, again;

	spin_lock_irqsave(&wire_lock, flags);
	wire_drain();
	wakeup = kfifo_len(&wire_fifo) < TTY_WAKEUP_CHARS;
	again = !wire_stuck && !kfifo_is_empty(&wire_fifo);
	wire_ticking = again;
	spin_unlock_irqrestore(&wire_lock, flags);

	if (wakeup)
		tty_port_tty_wakeup(&wire_port);
	if (!again)
		return HRTIMER_NORESTART;
	hrtimer_forward_now(timer, TTY_TICK);
	return HRTIMER_RESTART;
}

static void wire_set_speed(struct tty_struct *tty)
{
	unsigned int baud = tty_get_baud_rate(tty);
	unsigned int bits = tty_get_frame_size(tty->termios.c_cflag);
	unsigned long flags;

	if (!baud)	/* B0 hangs up and leaves the speed as it was */
		return;
	spin_lock_irqsave(&wire_lock, flags);
	wire_drain();
	wire_byte_ns = DIV_ROUND_CLOSEST_ULL((u64)bits * NSEC_PER_SEC, baud);
	spin_unlock_irqrestore(&wire_lock, flags);
}

static tty_written_t hat_tty_write(struct tty_struct *tty, const u8 *buf, tty_count_t count)
{
	unsigned long flags;
	unsigned int taken;

	spin_lock_irqsave(&wire_lock, flags);
	wire_drain();
	if (kfifo_is_empty(&wire_fifo))
		wire_free_ns = max(wire_free_ns, ktime_get_ns());
	taken = kfifo_in(&wire_fifo, buf, count);
	wire_start();
	spin_unlock_irqrestore(&wire_lock, flags);
	return taken;
}

static unsigned int wire_waiting(void)
{
	unsigned long flags;
	unsigned int waiting;

	spin_lock_irqsave(&wire_lock, flags);
	wire_drain();
	waiting = kfifo_len(&wire_fifo);
	spin_unlock_irqrestore(&wire_lock, flags);
	return waiting;
}

/* What a flush or the last close() discards: all but what has reached the adapter. */
static void wire_discard(void)
{
	u8 kept[TTY_ADAPTER_CHARS];
	unsigned int count = 0;

	lockdep_assert_held(&wire_lock);
	wire_drain();
	if (wire_adapter)
		count = kfifo_out(&wire_fifo, kept, sizeof(kept));
	kfifo_reset(&wire_fifo);
	kfifo_in(&wire_fifo, kept, count);
}

static unsigned int hat_tty_write_room(struct tty_struct *tty)
{
	return kfifo_size(&wire_fifo) - wire_waiting();
}

/* Counts the byte under way too, so the core's wait for 0 is all that tcdrain() needs. */
static unsigned int hat_tty_chars_in_buffer(struct tty_struct *tty)
{
	unsigned int waiting = wire_waiting();
	unsigned int unseen = READ_ONCE(wire_adapter) ? TTY_ADAPTER_CHARS : 0;

	return waiting - min(waiting, unseen);
}

static void hat_tty_flush_buffer(struct tty_struct *tty)
{
	unsigned long flags;

	/* usb-serial.c has no such operation. */
	if (READ_ONCE(wire_adapter))
		return;
	spin_lock_irqsave(&wire_lock, flags);
	wire_discard();
	spin_unlock_irqrestore(&wire_lock, flags);
	tty_wakeup(tty);
}

static void hat_tty_set_termios(struct tty_struct *tty, const struct ktermios *old)
{
	wire_set_speed(tty);
}

static int hat_tty_open(struct tty_struct *tty, struct file *file)
{
	if (!READ_ONCE(wire_plugged))
		return -ENXIO;
	return tty_port_open(&wire_port, tty, file);
}

static void hat_tty_close(struct tty_struct *tty, struct file *file)
{
	tty_port_close(&wire_port, tty, file);
}

static void hat_tty_hangup(struct tty_struct *tty)
{
	tty_port_hangup(&wire_port);
}

static const struct tty_operations hat_tty_ops = {
	.open = hat_tty_open,
	.close = hat_tty_close,
	.hangup = hat_tty_hangup,
	.write = hat_tty_write,
	.write_room = hat_tty_write_room,
	.chars_in_buffer = hat_tty_chars_in_buffer,
	.flush_buffer = hat_tty_flush_buffer,
	.set_termios = hat_tty_set_termios,
};

static tty_carrier_t wire_carrier_raised(struct tty_port *port)
{
	return true;
}

static int wire_activate(struct tty_port *port, struct tty_struct *tty)
{
	wire_set_speed(tty);
	return 0;
}

static void wire_shutdown(struct tty_port *port)
{
	unsigned long flags;

	spin_lock_irqsave(&wire_lock, flags);
	wire_discard();
	spin_unlock_irqrestore(&wire_lock, flags);
}

static const struct tty_port_operations wire_port_ops = {
	.carrier_raised = wire_carrier_raised,
	.activate = wire_activate,
	.shutdown = wire_shutdown,
};

static int tty_plug(void)
{
	struct device *dev;

	WRITE_ONCE(wire_plugged, true);
	dev = tty_port_register_device(&wire_port, wire_driver, 0, &hat_device->dev);
	if (IS_ERR(dev)) {
		WRITE_ONCE(wire_plugged, false);
		return PTR_ERR(dev);
	}
	return 0;
}

static int tty_unplug(void)
{
	struct tty_struct *tty;

	/* The order of uart_remove_one_port(). */
	WRITE_ONCE(wire_plugged, false);
	tty_unregister_device(wire_driver, 0);
	tty = tty_port_tty_get(&wire_port);
	if (tty) {
		tty_vhangup(tty);
		tty_kref_put(tty);
	}
	return 0;
}

static int tty_stuck_get(void *data, u64 *value)
{
	*value = READ_ONCE(wire_stuck);
	return 0;
}

static int tty_stuck_set(void *data, u64 value)
{
	unsigned long flags;

	if (value > 1)
		return -EINVAL;
	spin_lock_irqsave(&wire_lock, flags);
	wire_drain();
	if (wire_stuck && !value)
		wire_free_ns = ktime_get_ns();	/* nothing went out meanwhile */
	WRITE_ONCE(wire_stuck, value);
	wire_start();
	spin_unlock_irqrestore(&wire_lock, flags);
	return 0;
}
DEFINE_SIMPLE_ATTRIBUTE(tty_stuck_fops, tty_stuck_get, tty_stuck_set, "%llu\n");

static int tty_adapter_get(void *data, u64 *value)
{
	*value = READ_ONCE(wire_adapter);
	return 0;
}

static int tty_adapter_set(void *data, u64 value)
{
	if (value > 1)
		return -EINVAL;
	WRITE_ONCE(wire_adapter, value);
	return 0;
}
DEFINE_SIMPLE_ATTRIBUTE(tty_adapter_fops, tty_adapter_get, tty_adapter_set, "%llu\n");

static int hat_tty_init(void)
{
	int ret;

	hat_timer_init(&wire_timer, wire_tick);
	tty_port_init(&wire_port);
	wire_port.ops = &wire_port_ops;

	wire_driver = tty_alloc_driver(1, TTY_DRIVER_REAL_RAW | TTY_DRIVER_DYNAMIC_DEV);
	if (IS_ERR(wire_driver)) {
		ret = PTR_ERR(wire_driver);
		goto err_port;
	}
	wire_driver->driver_name = "csp1_hat";
	wire_driver->name = "ttyHAT";
	wire_driver->type = TTY_DRIVER_TYPE_SERIAL;
	wire_driver->subtype = SERIAL_TYPE_NORMAL;
	wire_driver->init_termios = tty_std_termios;
	wire_driver->init_termios.c_cflag = B9600 | CS8 | CREAD | HUPCL | CLOCAL;
	wire_driver->init_termios.c_ispeed = 9600;
	wire_driver->init_termios.c_ospeed = 9600;
	tty_set_operations(wire_driver, &hat_tty_ops);
	ret = tty_register_driver(wire_driver);
	if (ret)
		goto err_driver;

	debugfs_create_file("tty_stuck", 0600, hat_dir, NULL, &tty_stuck_fops);
	debugfs_create_file("tty_adapter", 0600, hat_dir, NULL, &tty_adapter_fops);
	return 0;

err_driver:
	tty_driver_kref_put(wire_driver);
err_port:
	tty_port_destroy(&wire_port);
	return ret;
}

static void hat_tty_exit(void)
{
	tty_unregister_driver(wire_driver);
	tty_driver_kref_put(wire_driver);
	hrtimer_cancel(&wire_timer);
	tty_port_destroy(&wire_port);
}

/* ---- the board ---- */

static struct hat_part {
	const char *file;
	int (*plug)(void);
	int (*unplug)(void);
	bool plugged;
	bool at_start;
} adc_part = { "adc_plugged", adc_plug, adc_unplug, .at_start = true },
  gpio_part = { "gpio_plugged", gpio_plug, gpio_unplug, .at_start = true },
  leds_part = { "leds_plugged", leds_plug, leds_unplug, .at_start = true },
  tty_part = { "tty_plugged", tty_plug, tty_unplug, .at_start = true };

static struct hat_part * const hat_parts[] = { &adc_part, &gpio_part, &leds_part, &tty_part };

module_param_named(adc_plugged, adc_part.at_start, bool, 0444);
module_param_named(gpio_plugged, gpio_part.at_start, bool, 0444);
module_param_named(leds_plugged, leds_part.at_start, bool, 0444);
module_param_named(tty_plugged, tty_part.at_start, bool, 0444);

static int hat_plugged_get(void *data, u64 *value)
{
	struct hat_part *part = data;

	*value = READ_ONCE(part->plugged);
	return 0;
}

static int hat_plugged_set(void *data, u64 value)
{
	struct hat_part *part = data;
	int ret = 0;

	if (value > 1)
		return -EINVAL;
	mutex_lock(&hat_plug_lock);
	if (part->plugged != value) {
		ret = value ? part->plug() : part->unplug();
		if (!ret)
			WRITE_ONCE(part->plugged, value);
	}
	mutex_unlock(&hat_plug_lock);
	return ret;
}
DEFINE_SIMPLE_ATTRIBUTE(hat_plugged_fops, hat_plugged_get, hat_plugged_set, "%llu\n");

static void hat_unplug_all(void)
{
	int i;

	hat_is_leaving = true;
	for (i = 0; i < ARRAY_SIZE(hat_parts); i++)
		hat_plugged_set(hat_parts[i], 0);
}

static int __init hat_init(void)
{
	int i, ret;

	ret = hat_log_init(&leds_log);
	ret = hat_log_init(&line_log) ?: ret;
	ret = hat_log_init(&tty_log) ?: ret;
	if (ret)
		goto err_logs;
	hat_device = platform_device_register_simple("csp1_hat", PLATFORM_DEVID_NONE, NULL, 0);
	if (IS_ERR(hat_device)) {
		ret = PTR_ERR(hat_device);
		goto err_logs;
	}
	hat_dir = debugfs_create_dir("csp1_hat", NULL);
	ret = adc_init();
	if (ret)
		goto err_device;
	ret = hat_tty_init();
	if (ret)
		goto err_adc;
	line_init();
	debugfs_create_file("line_log", 0600, hat_dir, &line_log, &hat_log_fops);
	debugfs_create_file("leds_log", 0600, hat_dir, &leds_log, &hat_log_fops);
	debugfs_create_file("tty_log", 0600, hat_dir, &tty_log, &hat_log_fops);

	for (i = 0; i < ARRAY_SIZE(hat_parts); i++) {
		debugfs_create_file(hat_parts[i]->file, 0600, hat_dir, hat_parts[i],
				    &hat_plugged_fops);
		if (hat_parts[i]->at_start) {
			ret = hat_plugged_set(hat_parts[i], 1);
			if (ret)
				goto err_parts;
		}
	}
	return 0;

err_parts:
	debugfs_remove_recursive(hat_dir);
	hat_dir = NULL;
	hat_unplug_all();
	line_exit();
	hat_tty_exit();
err_adc:
	adc_exit();
err_device:
	debugfs_remove_recursive(hat_dir);
	platform_device_unregister(hat_device);
err_logs:
	vfree(tty_log.records);
	vfree(line_log.records);
	vfree(leds_log.records);
	return ret;
}

static void __exit hat_exit(void)
{
	/* First the handles, so that nothing is plugged in again. */
	debugfs_remove_recursive(hat_dir);
	hat_unplug_all();
	line_exit();
	hat_tty_exit();
	adc_exit();
	platform_device_unregister(hat_device);
	vfree(tty_log.records);
	vfree(line_log.records);
	vfree(leds_log.records);
}

module_init(hat_init);
module_exit(hat_exit);

MODULE_DESCRIPTION("Virtual P1 current-sensor HAT for tests");
MODULE_LICENSE("GPL");
