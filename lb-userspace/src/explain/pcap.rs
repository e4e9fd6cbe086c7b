//! Captures, classic pcap and pcapng, as Ethernet frames.

use anyhow::{Context, Result, bail};
use pcap_file::DataLink;
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::{Block, PcapNgReader};
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

/// `EtherType`s that raw IP packets get (IEEE 802 numbers, IANA).
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];

/// A packet of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// Its place in the file, from 1: the number that Wireshark shows.
    pub number: u64,
    /// The Ethernet frame.
    pub frame: Vec<u8>,
    /// How long it was on the wire; more than there is of it if the capture cut it.
    pub wire_length: u32,
}

/// A capture of something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the frames are not Ethernet but {0:?}: capture on one interface, `tcpdump -i IFACE -w FILE`")]
pub struct NotEthernet(pub DataLink);

/// Reads a capture, a packet at a time, and hands each to `each`.
///
/// # Errors
///
/// The file cannot be read, is no capture, or holds frames that are not Ethernet; or `each` fails.
pub fn read(path: &Path, mut each: impl FnMut(Captured) -> Result<()>) -> Result<()> {
    let name = path.display();
    let mut file = File::open(path).with_context(|| format!("cannot open {name}"))?;
    let mut magic = [0; 4];
    file.read_exact(&mut magic).with_context(|| format!("{name} is not a capture: it is too short"))?;
    file.rewind().with_context(|| format!("cannot read {name}"))?;
    let input = BufReader::new(file);
    match magic {
        // The type of a section header block reads the same in both byte orders (pcapng draft, section 4.1).
        [0x0a, 0x0d, 0x0d, 0x0a] => read_pcapng(input, &mut each),
        [0xa1, 0xb2, 0xc3 | 0x3c, 0xd4 | 0x4d] | [0xd4 | 0x4d, 0xc3 | 0x3c, 0xb2, 0xa1] => {
            read_pcap(input, &mut each)
        }
        _ => bail!("{name} is not a capture: write one with `tcpdump -i IFACE -w FILE`"),
    }
    .with_context(|| format!("reading {name}"))
}

fn read_pcap(input: impl Read, each: &mut impl FnMut(Captured) -> Result<()>) -> Result<()> {
    let mut reader = PcapReader::new(input)?;
    // The upper half says whether frames end with their check sequence (pcap draft, section 4); it is padding to us.
    let link = DataLink::from(u32::from(reader.header().datalink) & 0xffff);
    let mut number = 0;
    // Raw: `next_packet` refuses a packet that was longer than the snapshot length, which cut captures are full of.
    while let Some(packet) = reader.next_raw_packet() {
        let packet = packet?;
        number += 1;
        each(Captured { number, frame: ethernet(link, &packet.data)?, wire_length: packet.orig_len })?;
    }
    Ok(())
}

fn read_pcapng(input: impl Read, each: &mut impl FnMut(Captured) -> Result<()>) -> Result<()> {
    let mut reader = PcapNgReader::new(input)?;
    let mut links = Vec::new();
    let mut number = 0;
    while let Some(block) = reader.next_block() {
        let (interface, data, wire_length) = match block? {
            // Interfaces are numbered anew in each section.
            Block::SectionHeader(_) => {
                links.clear();
                continue;
            }
            Block::InterfaceDescription(interface) => {
                links.push(interface.linktype);
                continue;
            }
            Block::EnhancedPacket(packet) => (packet.interface_id, packet.data, packet.original_len),
            Block::SimplePacket(packet) => (0, packet.data, packet.original_len),
            _ => continue,
        };
        number += 1;
        let link = links.get(interface as usize).copied();
        let link = link.with_context(|| {
            format!("packet {number} names interface {interface}, which is not described")
        })?;
        each(Captured { number, frame: ethernet(link, &data)?, wire_length })?;
    }
    Ok(())
}

/// The Ethernet frame of a captured packet.
fn ethernet(link: DataLink, data: &[u8]) -> Result<Vec<u8>> {
    let kind = match (link, data.first().map(|byte| byte >> 4)) {
        (DataLink::ETHERNET, _) => return Ok(data.to_vec()),
        (DataLink::IPV4, _) | (DataLink::RAW, Some(4)) => IPV4,
        (DataLink::IPV6, _) | (DataLink::RAW, Some(6)) => IPV6,
        (other, _) => return Err(NotEthernet(other).into()),
    };
    Ok([&[0; 12][..], &kind, data].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
    use pcap_file::pcapng::PcapNgWriter;
    use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
    use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionBlock;
    use std::time::Duration;

    fn collect(path: &Path) -> Result<Vec<Captured>> {
        let mut packets = Vec::new();
        read(path, |packet| {
            packets.push(packet);
            Ok(())
        })?;
        Ok(packets)
    }

    #[test]
    fn reads_classic_captures() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = PcapWriter::new(file.reopen().unwrap()).unwrap();
        for length in [60, 61] {
            writer.write_packet(&PcapPacket::new(Duration::ZERO, 100, &vec![7; length])).unwrap();
        }
        let packets = collect(file.path()).unwrap();
        assert_eq!(packets[1], Captured { number: 2, frame: vec![7; 61], wire_length: 100 });
        assert_eq!(packets.len(), 2);
    }

    #[test]
    fn reads_pcapng() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = PcapNgWriter::new(file.reopen().unwrap()).unwrap();
        let interface =
            InterfaceDescriptionBlock { linktype: DataLink::ETHERNET, snaplen: 0, options: vec![] };
        writer.write_pcapng_block(interface).unwrap();
        let packet = EnhancedPacketBlock {
            interface_id: 0,
            timestamp: Duration::ZERO,
            original_len: 60,
            data: vec![7; 60].into(),
            options: vec![],
        };
        writer.write_pcapng_block(packet).unwrap();
        let packets = collect(file.path()).unwrap();
        assert_eq!(packets, [Captured { number: 1, frame: vec![7; 60], wire_length: 60 }]);
    }

    #[test]
    fn raw_ip_gets_an_ethernet_header() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let header = PcapHeader { datalink: DataLink::RAW, ..PcapHeader::default() };
        let mut writer = PcapWriter::with_header(file.reopen().unwrap(), header).unwrap();
        writer.write_packet(&PcapPacket::new(Duration::ZERO, 20, &[0x45; 20])).unwrap();
        let frame = &collect(file.path()).unwrap()[0].frame;
        assert_eq!((frame.len(), &frame[12..15]), (34, &[0x08, 0x00, 0x45][..]));
    }

    #[test]
    fn a_cut_capture_with_check_sequences_is_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        // Ethernet with a check sequence of 16 bits; a snapshot length below what was on the wire.
        let header = PcapHeader { datalink: 0x1400_0001.into(), snaplen: 60, ..PcapHeader::default() };
        let mut writer = PcapWriter::with_header(file.reopen().unwrap(), header).unwrap();
        writer.write_packet(&PcapPacket::new(Duration::ZERO, 1514, &[7; 60])).unwrap();
        let packets = collect(file.path()).unwrap();
        assert_eq!(packets, [Captured { number: 1, frame: vec![7; 60], wire_length: 1514 }]);
    }

    #[test]
    fn other_links_are_told_by_name() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let header = PcapHeader { datalink: DataLink::PPP, ..PcapHeader::default() };
        let mut writer = PcapWriter::with_header(file.reopen().unwrap(), header).unwrap();
        writer.write_packet(&PcapPacket::new(Duration::ZERO, 20, &[0; 20])).unwrap();
        let error = collect(file.path()).unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&NotEthernet(DataLink::PPP)));
        assert!(format!("{error:#}").contains("PPP"));
    }

    #[test]
    fn says_what_is_wrong_with_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "no capture at all").unwrap();
        assert!(format!("{:#}", collect(file.path()).unwrap_err()).contains("is not a capture"));
        assert!(format!("{:#}", collect(Path::new("/nowhere")).unwrap_err()).contains("cannot open"));
    }
}
