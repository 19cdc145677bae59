// SPDX-License-Identifier: GPL-2.0-only
/*
 * csp1_mcp391x - an MCP3912 or MCP3911 at register level, behind an SPI controller.
 *
 * The kernel's own driver (drivers/iio/adc/mcp3911.c) binds to this chip as it
 * does to a real one: it talks to its registers over SPI, and the data-ready
 * pin is an interrupt. Only the analog side is simulated: a test writes the
 * voltages at the inputs, and faults.
 *
 * Where the device tree has a node "csp1d,mcp391x", that node is the SPI
 * controller, and its children are the chip: #address-cells 1, #size-cells 0,
 * interrupt-controller, #interrupt-cells 2, and below it an adc@0 as a board
 * has it (compatible, microchip,device-addr, clocks), with interrupts = <0 2>.
 * Elsewhere (amd64) the module makes the controller, the chip, its label
 * "csp1-hat-adc", its device address 1 and its clock itself.
 *
 * /sys/kernel/debug/csp1_mcp391x/:
 *   plugged      rw  1/0: the chip is on the bus (not with a device tree: bind and
 *                    unbind the driver instead)
 *   chip         rw  "mcp3912" or "mcp3911", before it is plugged (EBUSY afterwards)
 *   samples      w   s32 nanovolts of inputs 0 to 3, in rows; conversion N takes
 *                    row N, and after the last row the first one again
 *   conversions  r   conversions since the samples were written
 *   drop         rw  data-ready pulses to suppress from now on, counts down to 0
 *   oscillator   rw  0: the clock stands still, no conversion and no pulse
 *   powered      rw  0: no conversion, and all bits read as 0; with the power the
 *                    registers come back as they are after a reset
 *   miso         rw  "chip", or a broken line that is always "low" or "high"
 *   address      rw  the device address that the chip answers to, 0 to 3
 *   vref_uv      rw  microvolts of its reference; 0: off, each code is at a rail
 *
 * Modelled: the control byte with its device address, registers of 24 bits
 * (MCP3911: bytes), the address counter with all READ modes and with WRITE,
 * the data widths, gains, prescaler and oversampling, RESET and SHUTDOWN,
 * saturation. Not modelled: offset and gain calibration, phase, dithering,
 * CRC, LOCK, the modulator's output, DR_LINK.
 *
 * Sources: MCP3912 data sheet DS20005348, chapters 5.5, 6 and 8; MCP3911 data
 * sheet DS20002286, chapters 6 and 7. For Linux 6.1 and later.
 */
#include <linux/clk.h>
#include <linux/clk-provider.h>
#include <linux/clkdev.h>
#include <linux/debugfs.h>
#include <linux/hrtimer.h>
#include <linux/interrupt.h>
#include <linux/irq.h>
#include <linux/irqdomain.h>
#include <linux/math64.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/of.h>
#include <linux/platform_device.h>
#include <linux/property.h>
#include <linux/spi/spi.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <linux/version.h>
#include <linux/vmalloc.h>

#define CHIP_INPUTS 4
#define CHIP_REGISTERS 32
#define CHIP_CLOCK_HZ 4096000	/* of the reference HAT */
#define CHIP_VREF_UV 1200000	/* of the internal reference */
#define CODE_MAX 0x7fffff

enum { WIDTH_16, WIDTH_24, WIDTH_32_ZEROS, WIDTH_32_SIGN };
enum { READ_ONE, READ_GROUP, READ_TYPE, READ_ALL };

struct span {
	u8 first, last;
};

/* What differs between the chips. The address counter loops within a span. */
struct model {
	const char *name;
	unsigned int inputs;
	unsigned int addresses;		/* of one input's data; 1: registers of 24 bits */
	struct span groups[16], types[3];
	struct {
		u8 address;
		u32 value;
	} defaults[8];
};

static const struct model models[] = {
	{
		.name = "mcp3912",
		.inputs = 4,
		.addresses = 1,
		.groups = {
			{ 0x00, 0x01 }, { 0x02, 0x03 }, { 0x08, 0x0b }, { 0x0c, 0x0e },
			{ 0x0f, 0x10 }, { 0x11, 0x12 }, { 0x13, 0x14 }, { 0x15, 0x16 },
			{ 0x1f, 0x1f },
		},
		.types = { { 0x00, 0x03 }, { 0x08, 0x1f } },
		.defaults = {
			{ 0x0c, 0xb9000f }, { 0x0d, 0x386050 }, { 0x1f, 0xa50000 },
		},
	}, {
		.name = "mcp3911",
		.inputs = 2,
		.addresses = 3,
		.groups = {
			{ 0x00, 0x02 }, { 0x03, 0x05 }, { 0x06, 0x09 }, { 0x0a, 0x0d },
			{ 0x0e, 0x13 }, { 0x14, 0x19 }, { 0x1a, 0x1a },
		},
		.types = { { 0x00, 0x05 }, { 0x06, 0x0d }, { 0x0e, 0x1a } },
		.defaults = {
			{ 0x09, 0x80 }, { 0x0a, 0x03 }, { 0x0b, 0xb8 }, { 0x0c, 0x1e },
			{ 0x1a, 0x42 },
		},
	},
};

enum miso { MISO_CHIP, MISO_LOW, MISO_HIGH };
static const char * const miso_names[] = { "chip", "low", "high" };

static struct chip {
	/* Guards all that conversions and transfers use. */
	spinlock_t lock;
	const struct model *model;
	u32 registers[CHIP_REGISTERS];
	s32 codes[CHIP_INPUTS];
	s32 (*samples)[CHIP_INPUTS];
	size_t rows;
	u64 conversions;
	u32 clock_hz;

	struct hrtimer timer;
	u64 next_ns, rest;	/* end of the conversion under way; the rest of its division */
	struct irq_domain *domain;
	bool masked;

	/* The message under way. */
	unsigned int byte;	/* 0: the control byte is next */
	unsigned int address;
	unsigned int at;	/* byte of the register */
	u32 shifted;		/* bytes of a register being written */
	bool addressed, reads;

	u32 drop, device_address, vref_uv;
	bool stopped, unpowered;
	enum miso miso;

	/* Serialises plugging. */
	struct mutex plug_lock;
	struct spi_controller *controller;
	struct spi_device *device;
	struct dentry *dir;
} chip = {
	.lock = __SPIN_LOCK_UNLOCKED(chip.lock),
	.model = &models[0],
	.masked = true,
	.clock_hz = CHIP_CLOCK_HZ,
	.device_address = 1,
	.vref_uv = CHIP_VREF_UV,
	.plug_lock = __MUTEX_INITIALIZER(chip.plug_lock),
};

/* ---- registers ---- */

static bool is_3911(void)
{
	return chip.model->addresses == 3;
}

static void chip_power_on(void)
{
	int i;

	memset(chip.registers, 0, sizeof(chip.registers));
	memset(chip.codes, 0, sizeof(chip.codes));
	for (i = 0; i < ARRAY_SIZE(chip.model->defaults); i++)
		if (chip.model->defaults[i].address)
			chip.registers[chip.model->defaults[i].address] =
				chip.model->defaults[i].value;
}

/* MCP3911: a register of two bytes. */
static u32 pair(unsigned int address)
{
	return chip.registers[address] << 8 | chip.registers[address + 1];
}

static unsigned int chip_gain(unsigned int input)
{
	u32 gains = is_3911() ? chip.registers[0x09] : chip.registers[0x0b];
	unsigned int power = gains >> 3 * input & 7;

	return power > 5 ? 1 : 1 << power;
}

/* The oscillator's periods in one conversion. */
static u32 chip_divider(void)
{
	u32 config = is_3911() ? pair(0x0c) : chip.registers[0x0d];
	unsigned int prescaler = is_3911() ? config >> 14 & 3 : config >> 16 & 3;
	unsigned int oversampling = is_3911() ? config >> 11 & 7 : config >> 13 & 7;

	return 4 << prescaler << (5 + oversampling);
}

/* In reset or shut down. */
static bool chip_is_idle(unsigned int input)
{
	u32 config = is_3911() ? pair(0x0c) : chip.registers[0x0e];
	u32 resets = is_3911() ? config >> 6 : config >> 20;
	u32 shutdowns = is_3911() ? config >> 4 : config >> 16;

	return (resets | shutdowns) >> input & 1;
}

static unsigned int chip_width(unsigned int input)
{
	if (is_3911())
		return pair(0x0a) >> (3 + input) & 1 ? WIDTH_24 : WIDTH_16;
	return chip.registers[0x0c] >> 16 & 3;
}

static unsigned int chip_read_mode(void)
{
	return is_3911() ? pair(0x0a) >> 6 & 3 : chip.registers[0x0c] >> 22 & 3;
}

static bool chip_writes_on(void)
{
	return is_3911() ? pair(0x0a) >> 5 & 1 : chip.registers[0x0c] >> 21 & 1;
}

static bool is_data(unsigned int address)
{
	return address < chip.model->inputs * chip.model->addresses;
}

/* Bytes and value at an address as they are read. */
static unsigned int chip_value(unsigned int address, u32 *value)
{
	unsigned int input = address / chip.model->addresses;
	unsigned int width = chip_width(input);
	s32 code = chip.codes[input];

	if (!is_data(address)) {
		*value = chip.registers[address];
		return is_3911() ? 1 : 3;
	}
	if (width == WIDTH_16)
		code = min(code + 0x80, CODE_MAX) >> 8;
	if (is_3911()) {
		/* Three addresses, or two: the most significant byte first. */
		*value = code >> 8 * ((width == WIDTH_16 ? 1 : 2) - address % 3) & 0xff;
		return 1;
	}
	*value = width == WIDTH_32_ZEROS ? code << 8 : code;
	return (const u8[]){ 2, 3, 4, 4 }[width];
}

static unsigned int chip_next_in(const struct span *spans, unsigned int count, unsigned int address)
{
	unsigned int i;

	for (i = 0; i < count; i++)
		if (spans[i].first <= address && address <= spans[i].last)
			return address == spans[i].last ? spans[i].first : address + 1;
	return (address + 1) % CHIP_REGISTERS;
}

static unsigned int chip_next_read(unsigned int address)
{
	const struct model *model = chip.model;
	unsigned int mode = chip_read_mode();

	/* A word of 16 bits has no third byte. */
	if (is_3911() && is_data(address) && address % 3 == 1 && mode != READ_ONE &&
	    chip_width(address / 3) == WIDTH_16)
		address++;
	switch (mode) {
	case READ_ONE:
		return address;
	case READ_GROUP:
		return chip_next_in(model->groups, ARRAY_SIZE(model->groups), address);
	case READ_TYPE:
		return chip_next_in(model->types, ARRAY_SIZE(model->types), address);
	default:
		return (address + 1) % CHIP_REGISTERS;
	}
}

/* ---- conversions ---- */

static s32 chip_convert(unsigned int input)
{
	s64 nanovolts = chip.rows ? chip.samples[chip.conversions % chip.rows][input] : 0;
	s64 numerator = nanovolts * (3 << 22) * chip_gain(input);
	s64 denominator = (s64)chip.vref_uv * 1000;

	if (chip_is_idle(input))
		return 0;
	if (!denominator)
		return nanovolts < 0 ? -CODE_MAX - 1 : CODE_MAX;
	numerator += numerator < 0 ? -denominator / 2 : denominator / 2;
	return clamp_t(s64, div64_s64(numerator, denominator), -CODE_MAX - 1, CODE_MAX);
}

/* A conversion ends; true: with a pulse of data-ready. */
static bool chip_conversion(void)
{
	bool converts = false;
	unsigned int i;

	if (chip.stopped || chip.unpowered)
		return false;
	for (i = 0; i < chip.model->inputs; i++) {
		chip.codes[i] = chip_convert(i);
		converts |= !chip_is_idle(i);
	}
	chip.conversions++;
	if (!converts)
		return false;
	if (!chip.drop)
		return true;
	WRITE_ONCE(chip.drop, chip.drop - 1);
	return false;
}

static enum hrtimer_restart chip_tick(struct hrtimer *timer)
{
	u64 now = ktime_get_ns(), numerator;
	bool pulse = false;
	unsigned long flags;

	spin_lock_irqsave(&chip.lock, flags);
	/* Of pulses that were not seen in time only the last one is seen. */
	while (chip.next_ns <= now) {
		pulse |= chip_conversion();
		numerator = (u64)chip_divider() * NSEC_PER_SEC + chip.rest;
		chip.next_ns += div64_u64_rem(numerator, chip.clock_hz, &chip.rest);
	}
	hrtimer_set_expires(timer, ns_to_ktime(chip.next_ns));
	pulse &= !chip.masked;
	spin_unlock_irqrestore(&chip.lock, flags);

	if (pulse)
		generic_handle_domain_irq_safe(chip.domain, 0);
	return HRTIMER_RESTART;
}

/* Switches the chip on. */
static void chip_start(void)
{
	hrtimer_cancel(&chip.timer);
	chip_power_on();
	chip.next_ns = ktime_get_ns() + NSEC_PER_MSEC;
	hrtimer_start(&chip.timer, ns_to_ktime(chip.next_ns), HRTIMER_MODE_ABS_HARD);
}

static void chip_stop(void *unused)
{
	hrtimer_cancel(&chip.timer);
}

/* ---- the data-ready pin ---- */

static void pin_ack(struct irq_data *data)
{
}

/* An edge while masked is lost, as on a pin without a latch. */
static void pin_mask(struct irq_data *data)
{
	WRITE_ONCE(chip.masked, true);
}

static void pin_unmask(struct irq_data *data)
{
	WRITE_ONCE(chip.masked, false);
}

/* The pulses are low: a falling edge each. */
static int pin_set_type(struct irq_data *data, unsigned int type)
{
	return type == IRQ_TYPE_EDGE_FALLING ? 0 : -EINVAL;
}

static struct irq_chip pin_chip = {
	.name = "csp1-mcp391x",
	.irq_ack = pin_ack,
	.irq_mask = pin_mask,
	.irq_unmask = pin_unmask,
	.irq_set_type = pin_set_type,
};

static int pin_map(struct irq_domain *domain, unsigned int irq, irq_hw_number_t hwirq)
{
	irq_set_chip_and_handler(irq, &pin_chip, handle_edge_irq);
	return 0;
}

static const struct irq_domain_ops pin_ops = {
	.map = pin_map,
	.xlate = irq_domain_xlate_twocell,
};

static void pin_remove(void *unused)
{
	irq_dispose_mapping(irq_find_mapping(chip.domain, 0));
	irq_domain_remove(chip.domain);
}

/* ---- SPI ---- */

static void chip_write_byte(u8 in)
{
	chip.shifted = chip.shifted << 8 | in;
	if (++chip.at < (is_3911() ? 1 : 3))
		return;
	if (!is_data(chip.address))
		chip.registers[chip.address] = chip.shifted & (is_3911() ? 0xff : 0xffffff);
	chip.at = 0;
	if (chip_writes_on())
		chip.address = (chip.address + 1) % CHIP_REGISTERS;
}

static u8 chip_read_byte(void)
{
	unsigned int bytes;
	u32 value;
	u8 out;

	bytes = chip_value(chip.address, &value);
	out = value >> 8 * (bytes - 1 - chip.at);
	if (++chip.at == bytes) {
		chip.at = 0;
		chip.address = chip_next_read(chip.address);
	}
	return out;
}

/* One byte in each direction. A chip that is not addressed leaves the line to its pull-down. */
static u8 chip_exchange(u8 in)
{
	u8 out = 0;

	if (!chip.byte++) {
		/* Control byte: device address, register address, 1 to read. */
		chip.addressed = !chip.unpowered && in >> 6 == chip.device_address;
		chip.address = in >> 1 & 0x1f;
		chip.reads = in & 1;
		chip.at = 0;
	} else if (chip.addressed && chip.reads) {
		out = chip_read_byte();
	} else if (chip.addressed) {
		chip_write_byte(in);
	}
	return chip.miso == MISO_CHIP ? out : chip.miso == MISO_HIGH ? 0xff : 0;
}

static int chip_message(struct spi_controller *controller, struct spi_message *message)
{
	struct spi_transfer *transfer;
	unsigned long flags;
	unsigned int i;
	u8 out;

	/* No conversion ends in the middle of a message: the chip holds its data while it is read. */
	spin_lock_irqsave(&chip.lock, flags);
	chip.byte = 0;
	list_for_each_entry(transfer, &message->transfers, transfer_list) {
		for (i = 0; i < transfer->len; i++) {
			out = chip_exchange(transfer->tx_buf ? ((u8 *)transfer->tx_buf)[i] : 0);
			if (transfer->rx_buf)
				((u8 *)transfer->rx_buf)[i] = out;
		}
		if (transfer->cs_change)
			chip.byte = 0;
		message->actual_length += transfer->len;
	}
	spin_unlock_irqrestore(&chip.lock, flags);
	message->status = 0;
	spi_finalize_current_message(controller);
	return 0;
}

/* ---- debugfs ---- */

static int plugged_get(void *data, u64 *value)
{
	*value = !!READ_ONCE(chip.device);
	return 0;
}

static const struct property_entry chip_properties[] = {
	PROPERTY_ENTRY_STRING("label", "csp1-hat-adc"),
	PROPERTY_ENTRY_U32("microchip,device-addr", 1),
	{ }
};

static const struct software_node chip_node = {
	.name = "csp1-adc",
	.properties = chip_properties,
};

static int plug(void)
{
	struct spi_board_info info = {
		.swnode = &chip_node,
		.max_speed_hz = 10000000,
		.irq = irq_find_mapping(chip.domain, 0),
	};

	strscpy(info.modalias, chip.model->name, sizeof(info.modalias));
	chip_start();
	chip.device = spi_new_device(chip.controller, &info);
	return chip.device ? 0 : -ENODEV;
}

static int plugged_set(void *data, u64 value)
{
	int ret = 0;

	if (value > 1)
		return -EINVAL;
	mutex_lock(&chip.plug_lock);
	if (value && !chip.device) {
		ret = plug();
	} else if (!value && chip.device) {
		spi_unregister_device(chip.device);
		chip.device = NULL;
		chip_stop(NULL);
	}
	mutex_unlock(&chip.plug_lock);
	return ret;
}
DEFINE_SIMPLE_ATTRIBUTE(plugged_fops, plugged_get, plugged_set, "%llu\n");

static ssize_t read_name(char __user *buf, size_t len, loff_t *pos, const char *name)
{
	char line[16];
	int n = scnprintf(line, sizeof(line), "%s\n", name);

	return simple_read_from_buffer(buf, len, pos, line, n);
}

static int get_name(char *name, size_t size, const char __user *buf, size_t len)
{
	if (len >= size)
		return -EINVAL;
	if (copy_from_user(name, buf, len))
		return -EFAULT;
	name[len] = '\0';
	strim(name);
	return 0;
}

static ssize_t model_read(struct file *file, char __user *buf, size_t len, loff_t *pos)
{
	return read_name(buf, len, pos, chip.model->name);
}

static ssize_t model_write(struct file *file, const char __user *buf, size_t len, loff_t *pos)
{
	unsigned long flags;
	char name[16];
	int ret, i;

	ret = get_name(name, sizeof(name), buf, len);
	if (ret)
		return ret;
	for (i = 0; i < ARRAY_SIZE(models) && strcmp(name, models[i].name); i++)
		;
	if (i == ARRAY_SIZE(models))
		return -EINVAL;
	mutex_lock(&chip.plug_lock);
	if (chip.device) {
		ret = -EBUSY;
	} else {
		spin_lock_irqsave(&chip.lock, flags);
		chip.model = &models[i];
		chip_power_on();
		spin_unlock_irqrestore(&chip.lock, flags);
	}
	mutex_unlock(&chip.plug_lock);
	return ret ?: len;
}

static const struct file_operations model_fops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.read = model_read,
	.write = model_write,
};

static ssize_t miso_read(struct file *file, char __user *buf, size_t len, loff_t *pos)
{
	return read_name(buf, len, pos, miso_names[READ_ONCE(chip.miso)]);
}

static ssize_t miso_write(struct file *file, const char __user *buf, size_t len, loff_t *pos)
{
	char name[16];
	int ret;

	ret = get_name(name, sizeof(name), buf, len);
	if (ret)
		return ret;
	ret = match_string(miso_names, ARRAY_SIZE(miso_names), name);
	if (ret < 0)
		return ret;
	WRITE_ONCE(chip.miso, ret);
	return len;
}

static const struct file_operations miso_fops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.read = miso_read,
	.write = miso_write,
};

/* One write is the whole table; none of the old rows is played after it. */
static ssize_t samples_write(struct file *file, const char __user *buf, size_t len, loff_t *pos)
{
	size_t row = sizeof(*chip.samples);
	unsigned long flags;
	void *samples;

	if (!len || len % row || len > SZ_16M)
		return -EINVAL;
	samples = vmemdup_user(buf, len);
	if (IS_ERR(samples))
		return PTR_ERR(samples);
	spin_lock_irqsave(&chip.lock, flags);
	swap(samples, *(void **)&chip.samples);
	chip.rows = len / row;
	chip.conversions = 0;
	spin_unlock_irqrestore(&chip.lock, flags);
	kvfree(samples);
	return len;
}

static const struct file_operations samples_fops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.write = samples_write,
};

static int conversions_get(void *data, u64 *value)
{
	*value = READ_ONCE(chip.conversions);
	return 0;
}
DEFINE_SIMPLE_ATTRIBUTE(conversions_fops, conversions_get, NULL, "%llu\n");

static int number_get(void *data, u64 *value)
{
	*value = READ_ONCE(*(u32 *)data);
	return 0;
}

static int number_set(void *data, u64 value)
{
	unsigned long flags;

	if (value > (data == &chip.device_address ? 3 : S32_MAX))
		return -EINVAL;
	spin_lock_irqsave(&chip.lock, flags);
	WRITE_ONCE(*(u32 *)data, value);
	spin_unlock_irqrestore(&chip.lock, flags);
	return 0;
}
DEFINE_SIMPLE_ATTRIBUTE(number_fops, number_get, number_set, "%llu\n");

/* Of a flag that stands for a fault, 1 means that there is none. */
static int flag_get(void *data, u64 *value)
{
	*value = !READ_ONCE(*(bool *)data);
	return 0;
}

static int flag_set(void *data, u64 value)
{
	unsigned long flags;

	if (value > 1)
		return -EINVAL;
	spin_lock_irqsave(&chip.lock, flags);
	if (data == &chip.unpowered && chip.unpowered && value)
		chip_power_on();
	WRITE_ONCE(*(bool *)data, !value);
	spin_unlock_irqrestore(&chip.lock, flags);
	return 0;
}
DEFINE_SIMPLE_ATTRIBUTE(flag_fops, flag_get, flag_set, "%llu\n");

static void chip_free(void *unused)
{
	debugfs_remove_recursive(chip.dir);
	kvfree(chip.samples);
	chip.samples = NULL;
	chip.rows = 0;
}

static void chip_files(bool plugs)
{
	chip.dir = debugfs_create_dir("csp1_mcp391x", NULL);
	if (plugs) {
		debugfs_create_file("plugged", 0600, chip.dir, NULL, &plugged_fops);
		debugfs_create_file("chip", 0600, chip.dir, NULL, &model_fops);
	}
	debugfs_create_file("samples", 0200, chip.dir, NULL, &samples_fops);
	debugfs_create_file("conversions", 0400, chip.dir, NULL, &conversions_fops);
	debugfs_create_file("drop", 0600, chip.dir, &chip.drop, &number_fops);
	debugfs_create_file("address", 0600, chip.dir, &chip.device_address, &number_fops);
	debugfs_create_file("vref_uv", 0600, chip.dir, &chip.vref_uv, &number_fops);
	debugfs_create_file("oscillator", 0600, chip.dir, &chip.stopped, &flag_fops);
	debugfs_create_file("powered", 0600, chip.dir, &chip.unpowered, &flag_fops);
	debugfs_create_file("miso", 0600, chip.dir, NULL, &miso_fops);
}

/* ---- the board ---- */

static void clock_remove(void *lookup)
{
	clkdev_drop(lookup);
}

static void clock_unregister(void *clock)
{
	clk_hw_unregister_fixed_rate(clock);
}

static int clock_add_for(struct device *dev, struct clk_hw *clock, const char *consumer)
{
	struct clk_lookup *lookup = clkdev_hw_create(clock, NULL, "%s", consumer);

	return lookup ? devm_add_action_or_reset(dev, clock_remove, lookup) : -ENOMEM;
}

/*
 * Without a device tree: the clock of the chip, found by the name that the chip
 * will have. Newer kernels name it after its software node.
 */
static int clock_add(struct device *dev)
{
	struct clk_hw *clock;
	char consumer[16];
	int ret;

	clock = clk_hw_register_fixed_rate(dev, "csp1-adc-clock", NULL, 0, CHIP_CLOCK_HZ);
	if (IS_ERR(clock))
		return PTR_ERR(clock);
	ret = devm_add_action_or_reset(dev, clock_unregister, clock);
	if (ret)
		return ret;
	scnprintf(consumer, sizeof(consumer), "spi%d.0", chip.controller->bus_num);
	return clock_add_for(dev, clock, consumer) ?: clock_add_for(dev, clock, "spi-csp1-adc");
}

/* The device tree says which chip it is, and names its clock. */
static int chip_from_tree(struct device_node *node)
{
	struct device_node *child = of_get_next_available_child(node, NULL);
	char compatible[32];
	struct clk *clock;
	int i;

	for (i = 0; i < ARRAY_SIZE(models); i++) {
		snprintf(compatible, sizeof(compatible), "microchip,%s", models[i].name);
		if (!of_device_is_compatible(child, compatible))
			continue;
		chip.model = &models[i];
		clock = of_clk_get(child, 0);
		if (!IS_ERR(clock)) {
			chip.clock_hz = clk_get_rate(clock);
			clk_put(clock);
		}
		of_node_put(child);
		return chip.clock_hz ? 0 : -EINVAL;
	}
	of_node_put(child);
	return -ENODEV;
}

static int chip_probe(struct platform_device *pdev)
{
	struct device *dev = &pdev->dev;
	struct spi_controller *controller;
	int ret;

	if (chip.controller)
		return -EBUSY;	/* there is one chip */
	if (dev->of_node) {
		ret = chip_from_tree(dev->of_node);
		if (ret)
			return dev_err_probe(dev, ret, "no child that is an mcp3912 or mcp3911\n");
	}
	controller = devm_spi_alloc_host(dev, 0);
	if (!controller)
		return -ENOMEM;
	controller->dev.of_node = dev->of_node;
	controller->bus_num = -1;
	controller->num_chipselect = 1;
	controller->mode_bits = SPI_CPOL | SPI_CPHA;
	controller->bits_per_word_mask = SPI_BPW_MASK(8);
	controller->transfer_one_message = chip_message;

	chip_files(!dev->of_node);
	ret = devm_add_action_or_reset(dev, chip_free, NULL);
	if (ret)
		return ret;
	chip.domain = irq_domain_create_linear(dev_fwnode(dev), 1, &pin_ops, NULL);
	if (!chip.domain)
		return -ENOMEM;
	ret = devm_add_action_or_reset(dev, pin_remove, NULL);
	if (ret)
		return ret;
	if (!irq_create_mapping(chip.domain, 0))
		return -ENOMEM;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 13, 0)
	hrtimer_setup(&chip.timer, chip_tick, CLOCK_MONOTONIC, HRTIMER_MODE_ABS_HARD);
#else
	hrtimer_init(&chip.timer, CLOCK_MONOTONIC, HRTIMER_MODE_ABS_HARD);
	chip.timer.function = chip_tick;
#endif
	if (dev->of_node)
		chip_start();
	ret = devm_add_action_or_reset(dev, chip_stop, NULL);
	if (ret)
		return ret;
	ret = devm_spi_register_controller(dev, controller);
	if (ret)
		return ret;
	chip.controller = controller;
	if (dev->of_node)
		return 0;
	ret = clock_add(dev);
	return ret ?: plugged_set(NULL, 1);
}

static const struct of_device_id chip_of_match[] = {
	{ .compatible = "csp1d,mcp391x" },
	{ }
};
MODULE_DEVICE_TABLE(of, chip_of_match);

static struct platform_driver chip_driver = {
	.probe = chip_probe,
	.driver = {
		.name = "csp1_mcp391x",
		.of_match_table = chip_of_match,
		.suppress_bind_attrs = true,
	},
};

static struct platform_device *chip_board;	/* NULL: the device tree has it */

static int __init chip_init(void)
{
	struct device_node *node = of_find_compatible_node(NULL, NULL, "csp1d,mcp391x");
	int ret;

	of_node_put(node);
	ret = platform_driver_register(&chip_driver);
	if (ret || node)
		return ret;
	chip_board = platform_device_register_simple("csp1_mcp391x", PLATFORM_DEVID_NONE, NULL, 0);
	if (IS_ERR(chip_board)) {
		platform_driver_unregister(&chip_driver);
		return PTR_ERR(chip_board);
	}
	return 0;
}

static void __exit chip_exit(void)
{
	if (chip_board) {
		plugged_set(NULL, 0);
		platform_device_unregister(chip_board);
	}
	platform_driver_unregister(&chip_driver);
}

module_init(chip_init);
module_exit(chip_exit);

MODULE_DESCRIPTION("MCP3912 and MCP3911 at register level, for tests");
MODULE_LICENSE("GPL");
